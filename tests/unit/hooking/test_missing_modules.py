# SPDX-License-Identifier: GPL-2.0-or-later
"""A script whose modules are not on the host stops every VM: lint tells before, the failure's message afterwards."""

from __future__ import annotations

import os

import pytest

from vdsm.hooking.errors import HookFailed, cause
from vdsm.hooking.lint import Severity, lint

DOMAIN = "<domain type='qemu'>\n<name>web</name>\n</domain>"
PYTHON = "#!/usr/bin/python3\n"


def told(paths):
    return [(str(f.severity), f.problem) for f in lint(paths.hooks, 36) if f.severity is not Severity.NOTE]


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("from vdsm.common import cmdutils\n", "vdsm.common"),
        ("import vdsm.network.ipwrapper\n", "vdsm.network.ipwrapper"),
        ("from vdsm import osinfo\n", "vdsm.osinfo"),
        ("import guestfs_of_nobody\n", "guestfs_of_nobody"),
        ("if True:\n    import hooking, nowhere.at.all\n", "nowhere.at.all"),
        ("import xml.nothing\n", "xml.nothing"),
        ("class A:\n    import nowhere\n", "nowhere"),
    ],
)
@pytest.mark.parametrize("head", [PYTHON, "#!/usr/bin/env python3\n"])
def test_an_import_at_the_start_that_is_not_found_is_an_error(install, paths, head, text, module):
    install("before_vm_start", "50_x", text, head=head)
    ((severity, problem),) = [found for found in told(paths) if f"imports {module}," in found[1]]
    assert severity == "error"
    assert "so it fails for every VM" in problem


def test_an_import_that_only_a_function_needs_is_a_warning(install, paths):
    install("before_vm_start", "50_x", "def f():\n    from vdsm.common import units\n", head=PYTHON)
    assert {severity for severity, problem in told(paths) if "line 3 imports" in problem} == {"warning"}


def test_imports_that_are_found_or_may_fail_are_not_told(install, paths):
    install("before_vm_start", "helper_of_mine.py", "", head="", mode=0o644)
    text = (
        "import hooking, os.path, sys, json.decoder, xml.dom.minidom, helper_of_mine\n"
        "import vdsm.hook.hooking\n"
        "from vdsm.hook import hooking as again\n"
        "from os import path\n"
        "from . import nothing\n"
        "try:\n    import vdsm.common.nowhere\nexcept ImportError:\n    pass\n"
    )
    install("before_vm_start", "50_x", text, head=PYTHON)
    assert told(paths) == []


def test_an_interpreter_from_elsewhere_is_never_run(install, paths, tmp_path):
    ran = tmp_path / "ran"
    interpreter = tmp_path / "python3"
    interpreter.write_text(f"#!/bin/sh\ntouch {ran}\n")
    interpreter.chmod(0o755)
    install("before_vm_start", "50_x", "import vdsm.common.nowhere\n", head=f"#!{interpreter}\n")
    assert told(paths) == []
    assert not ran.exists()


async def test_a_script_may_use_urllib_after_hooking(hooks, install):
    install("before_vm_start", "50_x", "import hooking\nimport urllib\nurllib.parse.quote('a b')\n", head=PYTHON)
    await hooks.run_xml("before_vm_start", DOMAIN)


async def test_a_traceback_is_told_by_its_cause(hooks, install):
    deep = "def f(n):\n    f(n - 1) if n else nowhere()\nimport sys\nsys.stderr.write('first words\\n')\nf(60)\n"
    install("before_vm_start", "50_x", deep, head=PYTHON)
    with pytest.raises(HookFailed) as failure:
        await hooks.run_xml("before_vm_start", DOMAIN)
    assert str(failure.value).endswith(
        "50_x ended with exit code 1: first words NameError: name 'nowhere' is not defined"
    )


def test_the_last_of_chained_tracebacks_with_all_its_lines_is_the_cause():
    frames = "Traceback (most recent call last):\n  File 'x', line 1, in f\n    raise\n\n"
    text = f"{frames}KeyError: 1\n\nDuring handling ...:\n\n{frames}ValueError: two\nlines\n"
    assert cause(text) == "ValueError: two\nlines"
    assert cause(" no traceback: all of it \n") == "no traceback: all of it"


def test_a_python_that_does_not_answer_leaves_the_rest_of_lint(install, paths):
    if os.path.exists("/usr/bin/python3.0"):
        pytest.skip("there is a Python 3.0 on this host")
    install("before_vm_start", "50_x", "import nowhere\n", head="#!/usr/bin/python3.0\n")
    assert told(paths) == [("error", "its interpreter /usr/bin/python3.0 is not on this host")]
