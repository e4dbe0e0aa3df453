# SPDX-License-Identifier: GPL-2.0-or-later
"""Each rule that scripts written for VDSM rely on, with real scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vdsm.hooking import trace
from vdsm.hooking.dry_run import TriedVm
from vdsm.hooking.environment import SCRIPT_LIBRARY
from vdsm.hooking.errors import ForbiddenProperty, HookFailed

VM_ID = "5a3b1c5e-7b0c-4b56-9d36-0f2f4b7f0a01"
DOMAIN = f"<domain type='qemu'>\n<name>web</name>\n<uuid>{VM_ID}</uuid>\n<memory>1024</memory>\n</domain>"
# appends a comment: well-formed, and tells who ran in which order
MARK = 'printf "<!--%s-->" "$(basename "$0")" >> "$_hook_domxml"\n'


def vm(**custom: str) -> TriedVm:
    return TriedVm(VM_ID, custom)


async def test_nothing_installed_hands_back_the_input_itself(hooks, paths):
    assert await hooks.run_xml("before_vm_start", DOMAIN) is DOMAIN
    data = {"a": 1}
    assert await hooks.run_json("after_get_caps", data) is data
    assert trace.read(trace.folder_of(paths)) == []


async def test_scripts_run_in_byte_order_and_see_each_others_work(hooks, install):
    for name in ("60_b", "10_z", "5_x", "60_B", "60_ä"):
        install("before_vm_start", name, MARK)
    result = await hooks.run_xml("before_vm_start", DOMAIN)
    assert result == DOMAIN + "<!--10_z--><!--5_x--><!--60_B--><!--60_b--><!--60_ä-->"


async def test_only_executable_files_without_dot_run(hooks, install, paths):
    install("before_vm_start", "10_run", MARK)
    install("before_vm_start", ".20_dot", MARK)
    install("before_vm_start", "30_not_executable", MARK, mode=0o644)
    install("before_vm_start", "library.py", "raise SystemExit(2)", mode=0o644)
    os.makedirs(Path(paths.hooks, "before_vm_start", "40_folder"))
    os.symlink("/nowhere", Path(paths.hooks, "before_vm_start", "50_dangling"))
    assert await hooks.run_xml("before_vm_start", DOMAIN) == DOMAIN + "<!--10_run-->"


async def test_symbolic_links_are_followed(hooks, paths, tmp_path):
    real = tmp_path / "real"
    real.write_text("#!/bin/sh\n" + MARK)
    real.chmod(0o755)
    os.makedirs(Path(paths.hooks, "before_vm_start"), mode=0o755)
    os.symlink(real, Path(paths.hooks, "before_vm_start", "50_link"))
    assert await hooks.run_xml("before_vm_start", DOMAIN) == DOMAIN + "<!--50_link-->"


async def test_a_script_without_interpreter_line_runs_under_sh(hooks, install):
    install("before_vm_start", "10_x", MARK, head="")
    assert "<!--10_x-->" in await hooks.run_xml("before_vm_start", DOMAIN)


@pytest.mark.parametrize(
    ("code", "ran"),
    [
        (0, ["10", "20", "30"]),
        (1, ["10", "20", "30"]),
        (2, ["10", "20"]),
        (3, ["10", "20", "30"]),
        (77, ["10", "20", "30"]),
    ],
)
async def test_exit_codes(hooks, install, paths, code, ran):
    """0 goes on, 1 and reserved codes fail and go on, 2 fails and stops."""
    install("before_vm_cont", "10", "exit 0")
    install("before_vm_cont", "20", f"echo why >&2; exit {code}")
    install("before_vm_cont", "30", "echo last >&2; exit 0")
    if code:
        with pytest.raises(HookFailed) as failure:
            await hooks.run_xml("before_vm_cont", DOMAIN)
        assert (failure.value.script, failure.value.code, failure.value.stderr) == ("20", code, "why\n")
        assert f"before_vm_cont/20 ended with exit code {code}: why" in str(failure.value)
    else:
        await hooks.run_xml("before_vm_cont", DOMAIN)
    (record,) = trace.read(trace.folder_of(paths))
    assert [script.script for script in record.scripts] == ran


async def test_killed_by_signal_is_a_failure_with_negative_code(hooks, install):
    install("before_vm_start", "10", "kill -SEGV $$")
    with pytest.raises(HookFailed) as failure:
        await hooks.run_xml("before_vm_start", DOMAIN)
    assert failure.value.code == -11
    assert "was killed by SIGSEGV (exit code -11)" in str(failure.value)


async def test_the_first_failing_script_is_named_not_the_last_one(hooks, install):
    install("before_vm_start", "10_bad", "echo first >&2; exit 1")
    install("before_vm_start", "20_bad", "echo second >&2; exit 1")
    install("before_vm_start", "30_good", "echo fine >&2")
    with pytest.raises(HookFailed, match="10_bad ended with exit code 1: first"):
        await hooks.run_xml("before_vm_start", DOMAIN)


async def test_edits_of_a_failed_script_stay(hooks, install):
    install("after_get_caps", "10", """printf '{"x": 1}' > "$_hook_json"; exit 1""")
    install("after_get_caps", "20", """sed -i 's/1/2/' "$_hook_json" """)
    assert await hooks.run_json("after_get_caps", {}) == {"x": 2}


async def test_output_is_ignored_where_the_table_says_so(hooks, install):
    install("before_vm_cont", "10", MARK)
    assert await hooks.run_xml("before_vm_cont", DOMAIN) == DOMAIN


async def test_points_that_do_not_abort_never_raise(hooks, install):
    install("after_vm_start", "10", "exit 2")
    assert await hooks.run_xml("after_vm_start", DOMAIN) == DOMAIN


async def test_one_private_temporary_file_for_the_whole_run(hooks, install, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    out = tmp_path / "out"
    for name in ("10", "20"):
        install("before_vm_start", name, f'stat -c "%n %a %u" "$_hook_domxml" >> {out}')
    await hooks.run_xml("before_vm_start", DOMAIN)
    first, second = out.read_text().splitlines()
    assert first == second
    name, mode, uid = first.split()
    assert (os.path.dirname(name), mode, int(uid)) == (str(tmp_path), "600", os.geteuid())
    assert not os.path.exists(name)


async def test_no_xml_is_an_empty_file(hooks, install, tmp_path):
    install("before_vm_destroy", "10", f'stat -c %s "$_hook_domxml" > {tmp_path}/size')
    assert await hooks.run_xml("before_vm_destroy", None) == ""
    assert (tmp_path / "size").read_text() == "0\n"


async def environment_of(run, install, tmp_path, point="before_vm_start"):
    install(point, "10", f"env -0 > {tmp_path}/env")
    await run()
    pairs = (tmp_path / "env").read_text().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


async def test_environment_in_order(hooks, install, tmp_path):
    """Parameters of the call, then the VM's properties over them, then vmId over both."""
    env = await environment_of(
        lambda: hooks.run_xml(
            "before_vm_start",
            DOMAIN,
            vm=vm(both="vm", only_vm="a=b&c^{'d':1}; $(x)", vmId="forged"),
            env={"both": "call", "only_call": "c"},
        ),
        install,
        tmp_path,
    )
    assert env["both"] == "vm"
    assert env["only_call"] == "c"
    assert env["only_vm"] == "a=b&c^{'d':1}; $(x)"
    assert env["vmId"] == VM_ID
    assert env["_hook_domxml"].startswith("/")
    assert "_hook_json" not in env
    assert env["LC_ALL"]


async def test_values_that_are_no_text_become_text(hooks, install, tmp_path):
    env = await environment_of(
        lambda: hooks.run_xml("before_vm_start", DOMAIN, env={"FROM_SNAPSHOT": True}), install, tmp_path
    )
    assert env["FROM_SNAPSHOT"] == "True"


async def test_json_points_get_the_other_variable(hooks, install, tmp_path):
    env = await environment_of(lambda: hooks.run_json("after_get_caps", {}), install, tmp_path, "after_get_caps")
    assert "_hook_json" in env
    assert "_hook_domxml" not in env


async def test_the_agents_own_prefix_stays_out(paths, install, tmp_path, monkeypatch):
    from vdsm.hooking.service import Hooks

    monkeypatch.setenv("PATH", f"{sys.prefix}/bin:/usr/bin:/bin")
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PYTHONPATH", f"/opt/site:{sys.prefix}/lib")
    monkeypatch.setenv("log_console_vm_regexp", ".*")
    hooks = Hooks(paths=paths)
    env = await environment_of(lambda: hooks.run_xml("before_vm_start", DOMAIN), install, tmp_path)
    assert env["PATH"] == "/usr/bin:/bin"
    assert env["PYTHONPATH"] == f"/opt/site:{SCRIPT_LIBRARY}"
    assert env["log_console_vm_regexp"] == ".*", "an administrator's setting for all scripts"
    assert not {"VIRTUAL_ENV", "PYTHONHOME", "LD_PRELOAD"} & set(env)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "IFS",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "_hook_domxml",
        "BASH_ENV",
        "",
        "a=b",
    ],
)
async def test_properties_that_change_how_scripts_run_are_refused(hooks, install, tmp_path, name):
    install("before_vm_start", "10", f"touch {tmp_path}/ran")
    with pytest.raises(ForbiddenProperty) as refusal:
        await hooks.run_xml("before_vm_start", DOMAIN, vm=vm(**{name: "x"}))
    assert repr(name) in str(refusal.value)
    assert not (tmp_path / "ran").exists()


async def test_a_forbidden_property_is_left_out_where_nothing_aborts(hooks, install, tmp_path):
    env = await environment_of(
        lambda: hooks.run_xml("after_vm_start", DOMAIN, vm=vm(LD_AUDIT="x", fine="y")),
        install,
        tmp_path,
        "after_vm_start",
    )
    assert "LD_AUDIT" not in env
    assert env["fine"] == "y"


async def test_stdin_cwd_session_and_descriptors(hooks, install, tmp_path):
    install(
        "before_vm_start",
        "10",
        f"exec > {tmp_path}/o; readlink /proc/$$/fd/0 /proc/$$/cwd /proc/$$/fd/1; ls /proc/$$/fd",
    )
    keep = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(keep, True)
    try:
        await hooks.run_xml("before_vm_start", DOMAIN)
    finally:
        os.close(keep)
    # no pipeline above: for a moment its ends are the shell's own
    stdin, cwd, stdout, *descriptors = (tmp_path / "o").read_text().splitlines()
    assert (stdin, cwd, stdout) == ("/dev/null", "/", f"{tmp_path}/o")
    assert sorted(int(n) for n in descriptors if int(n) < 10) == [0, 1, 2]


async def test_stdout_is_dropped(hooks, install, paths):
    install("before_vm_start", "10", "yes | head -c 3000000; echo told >&2")
    assert await hooks.run_xml("before_vm_start", DOMAIN) == DOMAIN
    (record,) = trace.read(trace.folder_of(paths))
    assert record.scripts[0].stderr == "told\n"


async def test_a_python_script_with_the_library(hooks, install):
    install(
        "before_vm_start",
        "50_memory",
        """
import os
import hooking
from vdsm.hook import hooking as same
assert same is hooking
dom = hooking.read_domxml()
dom.getElementsByTagName("memory")[0].firstChild.data = os.environ["memory"]
hooking.write_domxml(dom)
""",
        head="#!/usr/bin/python3\n",
    )
    result = await hooks.run_xml("before_vm_start", DOMAIN, vm=vm(memory="2048"))
    assert "<memory>2048</memory>" in result


async def test_installed_reports_checksums(hooks, install):
    path = install("before_vm_start", "10", "exit 0")
    install("before_vm_start", "readme.txt", "", mode=0o644)
    expected = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert hooks.installed() == {"before_vm_start": {"10": {"checksum": expected}}}
    path.write_text("#!/bin/sh\nexit 1\n")
    assert hooks.installed()["before_vm_start"]["10"]["checksum"] != expected


async def test_json_that_a_script_breaks(hooks, install):
    """Where nothing aborts the data stay as they were before that script; elsewhere the script is named."""
    install("after_get_caps", "10", """printf '{"x": 1}' > "$_hook_json" """)
    install("after_get_caps", "20", """printf '{"x": ' > "$_hook_json" """)
    assert await hooks.run_json("after_get_caps", {}) == {"x": 1}
    install("before_network_setup", "20", """printf '{"x": ' > "$_hook_json" """)
    with pytest.raises(HookFailed, match=r"before_network_setup/20 ended with exit code 0 and left JSON that can't be"):
        await hooks.run_json("before_network_setup", {"request": {}})


async def test_json_is_what_the_script_gets(hooks, install, tmp_path):
    install("before_network_setup", "10", f'cp "$_hook_json" {tmp_path}/in')
    await hooks.run_json("before_network_setup", {"request": {"networks": {"ovirtmgmt": {"nic": "eth0"}}}})
    assert json.loads((tmp_path / "in").read_text()) == {"request": {"networks": {"ovirtmgmt": {"nic": "eth0"}}}}
