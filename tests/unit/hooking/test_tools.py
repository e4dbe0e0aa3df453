# SPDX-License-Identifier: GPL-2.0-or-later
"""The table, the trace, the lint, the dry run, the script library and the root helper's verb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vdsm.common.errors import InvalidParameter
from vdsm.common.paths import Paths
from vdsm.hooking import trace
from vdsm.hooking.contents import difference
from vdsm.hooking.dry_run import NothingInstalled, try_point
from vdsm.hooking.environment import SCRIPT_LIBRARY
from vdsm.hooking.errors import HookFailed
from vdsm.hooking.lint import Severity, lint
from vdsm.hooking.points import POINTS, Data, UnknownPoint, find
from vdsm.hooking.records import Result, RunRecord, ScriptRecord
from vdsm.hooking.service import Hooks
from vdsm.root.server import hooks as root_hooks
from vdsm.root.server.registry import Helper, dispatch

VM_ID = "5a3b1c5e-7b0c-4b56-9d36-0f2f4b7f0a01"
DOMAIN = f"<domain type='qemu'>\n<name>web</name>\n<uuid>{VM_ID}</uuid>\n<memory>1024</memory>\n</domain>"


def test_the_table_has_every_point():
    assert len(POINTS) == 58
    assert {p.name for p in POINTS.values() if p.as_root} == {
        "before_vdsm_start",
        "before_network_setup",
        "after_network_setup",
        "after_network_setup_fail",
    }
    assert not [
        p.name for p in POINTS.values() if p.aborts and not p.name.startswith(("before_", "after_disk_prepare"))
    ]
    assert {p.name for p in POINTS.values() if p.output_used and p.data is Data.DOMAIN} == {"before_vm_start"}


def test_an_unknown_point_suggests_the_nearest():
    with pytest.raises(UnknownPoint, match="did you mean before_vm_start"):
        find("before_vm_strat")


async def test_a_point_is_never_a_path(hooks):
    for name in ("../before_vm_start", "/etc", ""):
        with pytest.raises(UnknownPoint):
            await hooks.run_xml(name, DOMAIN)


# Trace


def record(point="before_vm_start", result=Result.DONE, stderr="", vm_id=""):
    return RunRecord(point, 1.0, 0.5, (ScriptRecord("10", result, "why", 1, 1.0, 0.5, stderr, len(stderr)),), vm_id)


def test_the_trace_is_bounded_and_keeps_the_newest(tmp_path):
    kept = trace.Trace(str(tmp_path / "hooks"), max_bytes=10_000)
    for number in range(200):
        kept.append(record(vm_id=str(number), stderr="x" * 500))
    assert sum(file.stat().st_size for file in (tmp_path / "hooks").iterdir()) <= 20_000
    found = trace.read(str(tmp_path / "hooks"), last=5)
    assert [r.vm_id for r in found] == ["195", "196", "197", "198", "199"]
    assert found[0] == record(vm_id="195", stderr="x" * 500)


def test_a_torn_line_loses_only_itself(tmp_path):
    kept = trace.Trace(str(tmp_path))
    kept.append(record(vm_id="a"))
    with open(tmp_path / "trace.jsonl", "ab") as file:
        file.write(b'{"point": "before\n\xff\n[]\n')
    kept.append(record(vm_id="b"))
    assert [r.vm_id for r in trace.read(str(tmp_path))] == ["a", "b"]


def test_polled_points_leave_a_trace_only_when_they_fail(tmp_path):
    kept = trace.Trace(str(tmp_path))
    kept.append(record("after_get_stats"))
    kept.append(record("after_get_stats", Result.FAILED))
    assert [str(r.scripts[0].result) for r in trace.read(str(tmp_path))] == ["failed"]


async def test_the_trace_has_the_difference_without_passwords(hooks, install, paths):
    install("before_vm_start", "10", """sed -i 's/1024/2048/; s/one/two/' $_hook_domxml""")
    await hooks.run_xml("before_vm_start", DOMAIN.replace("</memory>", "</memory>\n<graphics passwd='one'/>"))
    (run,) = trace.read(trace.folder_of(paths))
    assert "-<memory>1024</memory>\n" in run.scripts[0].diff
    assert "+<memory>2048</memory>\n" in run.scripts[0].diff
    assert "one" not in run.scripts[0].diff
    assert "two" not in run.scripts[0].diff


def test_another_writers_quotes_are_no_difference():
    assert difference(Data.DOMAIN, "<a b='1' c='2'><d/></a>", '<?xml version="1.0"?><a c="2" b="1"><d></d></a>') == ""


# Lint


def findings(paths, uid=36):
    return [(os.path.relpath(f.path, paths.hooks), str(f.severity), f.problem) for f in lint(paths.hooks, uid)]


@pytest.mark.parametrize(
    ("name", "head", "body", "mode", "severity", "problem"),
    [
        ("50_x", "#!/bin/sh\n", "", 0o644, "error", "not executable, so it never runs"),
        ("50_x", "#!/bin/sh\n", "", 0o600, "error", "not executable, so it never runs"),
        ("50_x", "#!/bin/sh\n", "", 0o700, "error", "not executable for the agent's user, so it never runs"),
        ("library.py", "", "x = 1", 0o644, "note", "not executable: taken for something that scripts use"),
        ("50_x", "#!/bin/sh\n", "", 0o777, "error", "refused: it is writable by every user (mode 0777)"),
        (".50_x", "#!/bin/sh\n", "", 0o755, "warning", "its name begins with a dot, so it never runs"),
        (
            "x",
            "#!/bin/sh\n",
            "",
            0o755,
            "warning",
            "its name has no two-digit prefix, so its place in the order is by chance",
        ),
        ("50_x.rpmsave", "#!/bin/sh\n", "", 0o755, "warning", "looks like a left-over copy, and it runs"),
        ("50_x", "", "exit 0\n", 0o755, "warning", "has no interpreter line, so /bin/sh runs it"),
        (
            "50_x",
            "",
            "import os\n",
            0o755,
            "error",
            "has no interpreter line, so /bin/sh runs it, but it looks like Python",
        ),
        ("50_x", "#!/no/such\n", "", 0o755, "error", "its interpreter /no/such is not on this host"),
        ("50_x", "#!python3\n", "", 0o755, "error", "its interpreter 'python3' is not an absolute path"),
        ("50_x", "#!\n", "", 0o755, "error", "its interpreter line names none"),
        ("50_x", "#!/usr/bin/env nosuch\n", "", 0o755, "error", "env does not find 'nosuch'"),
        ("50_x", "#!/bin/sh\r\n", "exit 0\r\n", 0o755, "error", "has Windows line ends"),
        ("50_x", "\ufeff#!/bin/sh\n", "", 0o755, "error", "begins with a byte order mark"),
        ("50_x", "", "", 0o755, "warning", "empty: it runs and does nothing"),
        ("50_x", "#!/usr/bin/python3\n", "print 'x'\n", 0o755, "error", "Python 2, line 2"),
        ("50_x", "#!/usr/bin/python3\n", "try:\n pass\nexcept A, e:\n pass\n", 0o755, "error", "Python 2, line 4"),
        ("50_x", "#!/usr/bin/python3\n", "def f(:\n", 0o755, "error", "broken Python, line 2"),
        ("50_x", "#!/usr/bin/python3\n", "for k in {}.iteritems(): pass\n", 0o755, "warning", "line 2 uses iteritems"),
    ],
)
def test_lint_says_what_is_wrong_with_a_file(install, paths, name, head, body, mode, severity, problem):
    install("before_vm_start", name, body, mode=mode, head=head)
    found = findings(paths)
    assert any(s == severity and p.startswith(problem) for _, s, p in found), found


def test_lint_says_all_that_is_wrong_with_a_script_at_once(install, paths):
    install("before_vm_start", "x", "print 'x'\r\n", mode=0o644, head="#!/usr/bin/python3\r\n")
    told = " ".join(problem for _, _, problem in findings(paths))
    assert all(word in told for word in ("not executable", "two-digit", "Windows line ends"))


def test_lint_has_nothing_to_say_of_a_good_script(install, paths):
    install("before_vm_start", "50_x", "import hooking\n", head="#!/usr/bin/python3\n")
    install("before_vm_start", "60_x", "exit 0\n")
    assert findings(paths) == []


def test_lint_of_folders_and_links(install, paths):
    install("before_vm_strat", "50_x", "")
    install("before_ifcfg_write", "50_x", "")
    install("after_vm_hibernate", "50_x", "")
    install("before_vm_start", "50_x", "")
    os.symlink("/nowhere", Path(paths.hooks, "before_vm_start", "60_gone"))
    Path(paths.hooks, "50_lost").touch()
    Path(paths.hooks, "before_vm_start").chmod(0o777)
    found = {f.path.removeprefix(paths.hooks + "/"): f for f in lint(paths.hooks, 36)}
    assert found["before_vm_strat"].remedy == "did you mean before_vm_start?"
    assert "no longer exists" in found["before_ifcfg_write"].problem
    assert "does not run after_vm_hibernate yet" in found["after_vm_hibernate"].problem
    assert "a symbolic link to /nowhere, which is not there" in found["before_vm_start/60_gone"].problem
    assert found["50_lost"].severity is Severity.WARNING
    assert "refused: its directory" in found["before_vm_start/50_x"].problem


def test_lint_of_a_root_point_wants_root_all_the_way(install, paths, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    install("before_network_setup", "50_x", "")
    os.chown(paths.hooks, 12345, 0)
    assert any("belongs to user 12345, expected root" in problem for _, _, problem in findings(paths))


# Dry run


async def test_a_dry_run_shows_the_difference_and_leaves_no_trace(install, paths):
    install("before_vm_start", "50_x", 'echo "$VDSM_HOOK_DRY_RUN $size" >&2; sed -i "s/1024/$size/" $_hook_domxml')
    trial = await try_point(paths.hooks, "before_vm_start", DOMAIN, custom={"size": "4096"})
    assert "+<memory>4096</memory>" in trial.diff
    assert trial.record.scripts[0].stderr == "1 4096\n"
    assert not trial.failed
    assert trace.read(trace.folder_of(paths)) == []


async def test_a_dry_run_tells_a_failure_instead_of_raising(install, paths):
    install("before_vm_start", "50_x", "printf '<' > $_hook_domxml")
    trial = await try_point(paths.hooks, "before_vm_start", DOMAIN)
    assert trial.failed
    assert trial.text == DOMAIN
    install("after_vm_start", "50_x", "printf '<a/>' > $_hook_domxml")
    trial = await try_point(paths.hooks, "after_vm_start", DOMAIN)
    assert trial.text == DOMAIN
    assert any("ignores what scripts write" in note for note in trial.notes)


async def test_a_dry_run_refuses_what_makes_no_sense(paths):
    with pytest.raises(NothingInstalled):
        await try_point(paths.hooks, "before_vm_start", DOMAIN)
    with pytest.raises(InvalidParameter, match="document"):
        await try_point(paths.hooks, "before_vm_start", "<domain>")
    with pytest.raises(InvalidParameter, match="before_vm_start takes domain XML: name a file"):
        await try_point(paths.hooks, "before_vm_start", "")
    with pytest.raises(UnknownPoint):
        await try_point(paths.hooks, "before_vm_starts", DOMAIN)


# Script library


def library(code, tmp_path, **variables):
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": SCRIPT_LIBRARY, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    return subprocess.run([python, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_library_json_flags_and_commands(tmp_path):
    (tmp_path / "j").write_text('{"a": 1}')
    code = f"""
import hooking
from vdsm.hook import hooking as older
assert older is hooking and older.hooks.load_vm_launch_flags_from_file
hooking.RUN_DIRECTORY = {str(tmp_path)!r}
d = hooking.read_json(); d["b"] = "ä"; hooking.write_json(d)
assert hooking.load_vm_launch_flags_from_file("vm1") == 0
hooking.dump_vm_launch_flags_to_file("vm1", 1)
assert hooking.load_vm_launch_flags_from_file("vm1") == 1
assert hooking.execCmd(["sh", "-c", "echo a; echo b; echo c >&2; exit 3"]) == (3, [b"a", b"b"], [b"c"])
assert hooking.execCmd(["cat"], data="x\\ny", raw=True) == (0, b"x\\ny", b"")
assert hooking.execCmd(["pwd"], cwd="/", env={{"PATH": "/bin"}}, nice=1, setsid=True)[1] == [b"/"]
for text in (True, "TRUE", "1", 7):
    assert hooking.tobool(text) is True, text
for text in (None, False, "0", "yes", []):
    assert hooking.tobool(text) is False, text
for name in ("os", "sys", "json", "io", "minidom", "hooks"):
    getattr(hooking, name)
hooking.exit_hook("bye")
"""
    done = library(code, tmp_path, _hook_json=str(tmp_path / "j"))
    assert (done.returncode, done.stderr) == (2, "bye\n")
    assert json.loads((tmp_path / "j").read_text()) == {"a": 1, "b": "ä"}
    assert (tmp_path / "vm1" / "launchflags").read_text() == "1"


def test_library_parses_as_python_3_6():
    import ast

    for file in Path(SCRIPT_LIBRARY).rglob("*.py"):
        ast.parse(file.read_text(), feature_version=(3, 6))


# Root helper


class RootInProcess:
    """The helper's dispatch without its socket; what crosses the border is JSON."""

    def __init__(self, paths: Paths) -> None:
        self.calls: list[str] = []
        self._helper = Helper(paths, 36, 36)

    async def call(self, verb, params, *, timeout_s):
        self.calls.append(verb)
        return json.loads(json.dumps(await dispatch(self._helper, verb, json.loads(json.dumps(dict(params))))))


async def test_root_points_go_through_the_helper(install, paths):
    if os.geteuid() != 0:
        pytest.skip("root's scripts must be root's")
    root = RootInProcess(paths)
    hooks = Hooks(paths=paths, root=root)
    data = {"request": {"networks": {}}}
    assert await hooks.run_json("before_network_setup", data) is data
    assert root.calls == [], "with nothing installed nobody is asked"
    install("before_network_setup", "10", """sed -i 's/{}/{"n": 1}/' $_hook_json""")
    assert await hooks.run_json("before_network_setup", data) == {"request": {"networks": {"n": 1}}}
    assert root.calls == ["Hooks.run"]
    assert trace.read(trace.folder_of(paths))[-1].point == "before_network_setup"
    install("before_network_setup", "20", "echo no >&2; exit 2")
    with pytest.raises(HookFailed, match="before_network_setup/20 ended with exit code 2: no"):
        await hooks.run_json("before_network_setup", data)


async def test_root_runs_nothing_that_a_group_can_write(install, paths):
    if os.geteuid() != 0:
        pytest.skip("root's scripts must be root's")
    install("before_vdsm_start", "10", f"touch {paths.state}/ran", mode=0o775)
    await Hooks(paths=paths, root=RootInProcess(paths)).run_empty("before_vdsm_start")
    assert not Path(paths.state, "ran").exists()
    assert "writable by group" in trace.read(trace.folder_of(paths))[-1].scripts[0].reason


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"point": "before_vm_start", "text": "", "timeout_s": 1}, root_hooks.NotARootPoint),
        ({"point": "../../tmp", "text": "", "timeout_s": 1}, UnknownPoint),
        ({"point": "before_vdsm_start", "text": "x", "timeout_s": 1}, InvalidParameter),
        ({"point": "before_network_setup", "text": "{", "timeout_s": 1}, InvalidParameter),
        ({"point": "before_network_setup", "text": "{}", "timeout_s": 0}, InvalidParameter),
        ({"point": "before_network_setup", "text": "{}", "timeout_s": float("1e9")}, InvalidParameter),
        ({"point": "before_network_setup", "text": "{}", "timeout_s": 1, "env": {"A": "b"}}, InvalidParameter),
        ({"point": "before_network_setup", "text": "{}"}, InvalidParameter),
    ],
)
async def test_the_helper_refuses(paths, params, error):
    with pytest.raises(error):
        await dispatch(Helper(paths, 36, 36), "Hooks.run", params)


def test_the_documentation_has_the_whole_table():
    text = (Path(__file__).resolve().parents[3] / "docs" / "hooks.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith(("| before_", "| after_"))]
    assert len(rows) == len(POINTS)
    for row in rows:
        name, _, data, result, aborts, user, runs = (cell.strip() for cell in row.strip("|").split("|"))
        point = POINTS[name]
        said = (data, result == "yes", aborts == "yes", user == "root", runs == "yes")
        assert said == (str(point.data), point.output_used, point.aborts, point.as_root, point.wired), row


@pytest.mark.parametrize("module", ["vdsm.cli", "vdsm.cli.vdsm_client"])
def test_a_script_may_run_the_agents_commands(module):
    """Its path has the script library before the agent's packages."""
    top = Path(SCRIPT_LIBRARY).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{SCRIPT_LIBRARY}:{top}"}
    argv = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
