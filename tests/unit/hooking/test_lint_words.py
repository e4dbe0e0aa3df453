# SPDX-License-Identifier: GPL-2.0-or-later
"""What an administrator reads about hooks: each finding with its weight and its remedy, complaints, differences."""

from __future__ import annotations

import os

import pytest

from vdsm.hooking import script_shell
from vdsm.hooking.contents import difference
from vdsm.hooking.limits import Limits
from vdsm.hooking.lint import lint
from vdsm.hooking.points import Data

POINT = "before_vm_start"
PYTHON = "#!/usr/bin/python3\n"
NO_POINT = "there is no such hook point, its scripts never run"


def told(paths, uid=0):
    return [
        (os.path.relpath(f.path, paths.hooks), str(f.severity), f.problem, f.remedy) for f in lint(paths.hooks, uid)
    ]


@pytest.mark.parametrize(
    ("folder", "finding"),
    [
        ("before_vm_strat", ("error", NO_POINT, "did you mean before_vm_start?")),
        ("zzz", ("error", NO_POINT, "see 'vdsm hooks list --all' for the names")),
        ("before_ifcfg_write", ("error", "this hook point no longer exists, its scripts never run", "")),
    ],
)
def test_a_folder_that_is_no_point_says_what_was_meant(paths, folder, finding):
    os.mkdir(os.path.join(paths.hooks, folder))
    assert told(paths) == [(folder, *finding)]


def test_a_hooks_folder_that_is_missing_is_no_mistake(tmp_path):
    ((path, severity, problem),) = [(f.path, str(f.severity), f.problem) for f in lint(str(tmp_path / "no"), 36)]
    assert (path, severity, problem) == (str(tmp_path / "no"), "note", "there is no hooks folder: no hook runs")


@pytest.mark.parametrize("head", ["#!/bin/sh\n", "#!/usr/bin/env sh\n", ""])
def test_a_shell_script_that_cannot_be_parsed_is_told_with_its_line(paths, install, head):
    install(POINT, "50_x", "case x in\n  fi\n", head=head)
    *_, (_, severity, problem, _) = told(paths)
    assert (severity, "broken shell script, line " in problem) == ("error", True)


def test_a_shell_that_does_not_end_delays_the_lint_so_long_only(paths, install, monkeypatch, tmp_path):
    slow = tmp_path / "sh"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(script_shell, "is_shell", lambda interpreter: True)
    monkeypatch.setattr(script_shell, "CHECK_S", 0.1)
    install(POINT, "50_x", "true\n", head=f"#!{slow}\n")
    assert told(paths) == [
        (f"{POINT}/50_x", "warning", f"its syntax was not checked: {slow} -n did not end within 0.1 s", "")
    ]


def test_nothing_of_a_shell_script_is_run(paths, install, tmp_path):
    install(POINT, "50_x", f"touch {tmp_path}/ran\n$(touch {tmp_path}/ran)\n", head="#!/bin/bash\n")
    assert told(paths) == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("head", "body", "findings"),
    [
        ("", "", [("warning", "empty: it runs and does nothing", "remove it")]),
        (
            "#!/no/such\n",
            "",
            [("error", "its interpreter /no/such is not on this host", "install it, or mend the first line")],
        ),
        (
            "#!sh\n",
            "",
            [("error", "its interpreter 'sh' is not an absolute path", "write the whole path")],
        ),
        ("#!\n", "", [("error", "its interpreter line names none", "write, for example, #!/usr/bin/python3")]),
        (
            "#!/usr/bin/env no-such\n",
            "",
            [
                (
                    "error",
                    "env does not find 'no-such' in /usr/sbin:/usr/bin:/sbin:/bin",
                    "install it, or mend the first line",
                )
            ],
        ),
        (PYTHON, "x = \0", [("error", "no Python text: source code string cannot contain null bytes", "")]),
        (
            PYTHON,
            "print 'x'",
            [
                (
                    "error",
                    "Python 2, line 2: Missing parentheses in call to 'print'. Did you mean print(...)?",
                    "port it to Python 3 (2to3 does most of it)",
                )
            ],
        ),
        (PYTHON, "x = (", [("error", "broken Python, line 2: '(' was never closed", "mend the line")]),
        (
            PYTHON,
            "import no_such_module",
            [
                (
                    "error",
                    "line 2 imports no_such_module, which /usr/bin/python3 does not find, so it fails for every VM",
                    "install the package that has it, or take the script away",
                )
            ],
        ),
        (
            PYTHON,
            "def f():\n    from vdsm import utils",
            [
                (
                    "warning",
                    "line 3 imports vdsm.utils, which /usr/bin/python3 does not find, where a function needs it",
                    "of vdsm's own modules only vdsm.hook.hooking is here: take the script away, or port it",
                )
            ],
        ),
        (
            "#!/bin/bash\n",
            "if true; then\n  echo\n",
            [
                (
                    "error",
                    "broken shell script, line 4: syntax error: unexpected end of file",
                    "mend it; /bin/bash -n FILE tells whether it is",
                )
            ],
        ),
        ("#!/bin/bash -e\n", "shopt -s extglob\nrm -f !(kept)\n", []),
        (PYTHON, "from os import path\nfrom json import *\nimport hooking\nfrom vdsm.hook import hooking", []),
    ],
)
def test_a_script_is_told_with_its_weight_and_remedy(paths, install, head, body, findings):
    install(POINT, "50_x", body, head=head)
    assert told(paths) == [(f"{POINT}/50_x", *finding) for finding in findings]


@pytest.mark.parametrize("package", ["vdsm", "vdsm.common", "vdsm.network", "vdsm.storage"])
def test_each_module_of_vdsm_that_is_imported_is_told(paths, install, package):
    install(POINT, "50_x", f"from {package} import this, that", head=PYTHON)
    names = [problem.split()[3].rstrip(",") for _, _, problem, _ in told(paths)]
    assert names == [*([] if package == "vdsm" else [package]), f"{package}.this", f"{package}.that"]


def test_who_may_change_a_script_is_told_with_what_mends_it(paths, install):
    path = install(POINT, "50_x", "exit 0\n", mode=0o777)
    ((_, severity, problem, remedy),) = told(paths)
    assert (severity, problem) == ("error", "refused: it is writable by every user (mode 0777)")
    assert remedy == f"chown root:root {path}; chmod 0755 {path}, and the same for its directory"


# -- limits


def test_a_limit_of_no_point_is_complained_about_with_what_was_meant():
    limits = Limits(1.0, {"before_vm_start": 2.0, "before_vm_start/50_x": 3.0, "before_vm_strat/50_x": 4.0, "zzz": 5.0})
    assert limits.unknown_names() == [
        "[hook_timeouts] before_vm_strat/50_x: there is no such hook point; did you mean before_vm_start?",
        "[hook_timeouts] zzz: there is no such hook point",
    ]
    assert [limits.script_s("before_vm_start", name) for name in ("50_x", "60_y")] == [3.0, 2.0]
    assert limits.point_s("after_vm_start") == 1.0


# -- differences


def test_a_difference_says_which_side_is_which():
    assert difference(Data.JSON, '{"a": 1, "b": 2}', '{"b": 3, "a": 1}') == (
        '--- before\n+++ after\n@@ -1,4 +1,4 @@\n {\n  "a": 1,\n- "b": 2\n+ "b": 3\n }\n'
    )
    assert difference(Data.JSON, '{"a": 1}', '{ "a":1 }') == ""


def test_a_difference_of_xml_is_told_by_elements():
    assert difference(Data.DOMAIN, "<a><b/></a>", "<a><b/><c x='1'/></a>") == (
        '--- before\n+++ after\n@@ -1,3 +1,4 @@\n <a>\n <b></b>\n+<c x="1"></c>\n </a>\n'
    )
