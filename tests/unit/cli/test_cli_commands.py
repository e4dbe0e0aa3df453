# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands against a small JSON-RPC server on a unix socket: output, errors, exit codes."""

import asyncio
import functools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from vdsm.certificates import keeping
from vdsm.cli import checks, connection, doctor, hooks, output, overview, serve, watching
from vdsm.cli.app import app
from vdsm.cli.checks import Level, places
from vdsm.common.paths import Paths
from vdsm.hooking.dry_run import Trial
from vdsm.hooking.records import Result, RunRecord, ScriptRecord
from vdsm.virt.libvirt_edge import libvirt_hypervisor

DOCUMENT = {
    "methods": [
        {"name": name, "params": [{"name": key, "schema": {"type": kind}} for key, kind in params.items()]}
        for name, params in {
            "Host.echo": {"message": "string"},
            "Host.fail": {},
            "Volume.list": {},
            "StoragePool.connectStorageServer": {},
        }.items()
    ]
}
DOCUMENT["methods"].append(
    {
        "name": "VM.make",
        "params": [{"name": n, "required": True, "schema": {"type": "string"}} for n in ("vmID", "xml")],
    }
)
ERROR = {"code": 201, "message": "Volume does not exist", "data": {"remedy": "Look at the domain"}}
POOL, DOMAIN = "6a3b1f0e-0000-4000-8000-00000000000a", "6a3b1f0e-0000-4000-8000-00000000000b"
ANSWERS = {
    "rpc.discover": DOCUMENT,
    "Volume.list": [{"id": "v1", "size": 5}, {"id": "v2"}],
    "Host.getCapabilities": {"uuid": "host-1", "memSize": "1000", "networks": {"ovirtmgmt": {"iface": "br[0]"}}},
    "Host.getStats": {"cpuIdle": "50.00", "memFree": 250, "storageDomains": {DOMAIN: {"valid": False, "code": 358}}},
    "Host.getAllVmStats": [{"vmId": "vm-1", "vmName": "web", "status": "Up", "elapsedTime": "61"}],
    "Host.getConnectedStoragePools": [POOL],
    "StoragePool.connectStorageServer": [
        {"id": DOMAIN, "status": 453, "reason": "There is no folder /srv/x"},
        {"id": POOL, "status": 0},
    ],
    "storage.getLocks": [
        {
            "lock": f"00_storage/{DOMAIN}",
            "mode": "shared",
            "holders": [{"who": "task 1 (createVolume)", "seconds": 61.5}],
            "waiting": [{"who": "StorageDomain.[detach]", "mode": "exclusive", "seconds": 2.0}],
        }
    ],
    "StoragePool.getInfo": {"info": {"name": "main"}, "dominfo": {DOMAIN: {"status": "Active"}}},
}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):  # a WebSocket, from one whom it does not know
        self.send_response(403)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, params = request["method"], request.get("params")
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        if method == "Host.echo":
            answer["result"] = params["message"]
        elif method in ANSWERS:
            answer["result"] = ANSWERS[method]
        else:
            answer["error"] = ERROR
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def address_string(self):
        return "unix"


@pytest.fixture
def agent(tmp_path, monkeypatch):
    path = str(tmp_path / "vdsm.sock")
    monkeypatch.setenv("VDSM_SOCKET", path)
    with ThreadingUnixStreamServer(path, Answers) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def run(*words, **keywords):
    return CliRunner().invoke(app, list(words), **keywords)


def test_call_sends_typed_words_and_shows_the_answer(agent):
    done = run("call", "Host.echo", "message=42", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, "42")


def test_call_takes_parameters_from_standard_input(agent):
    assert run("call", "Host.echo", "-", input='{"message": "hi"}').stdout == "hi\n"


def test_who_has_a_lock_and_who_waits_for_it_is_shown(agent):
    lines = run("storage", "locks").stdout.splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        f"00_storage/{DOMAIN} held shared 1 min task 1 (createVolume)",
        f"00_storage/{DOMAIN} waits exclusive 2 s StorageDomain.[detach]",
    ]
    assert json.loads(run("storage", "locks", "--json").stdout) == ANSWERS["storage.getLocks"]


def test_list_of_objects_is_a_table_for_people(agent):
    lines = run("call", "Volume.list").stdout.splitlines()
    assert [line.split() for line in lines] == [["id", "size"], ["v1", "5"], ["v2"]]


def test_error_answered_shows_message_code_and_remedy(agent):
    done = run("call", "Host.fail")
    assert done.exit_code == 1
    assert "Host.fail: Volume does not exist (code 201)" in done.stderr and "Look at the domain" in done.stderr


@pytest.mark.parametrize("way", [[], ["--json"]])
def test_an_answer_too_deep_to_be_shown_is_said_so(way, monkeypatch):
    def carry_out(work, patience):
        work.close()
        return {"deep": functools.reduce(lambda inner, _: [inner], range(5000), [])}

    monkeypatch.setattr(connection, "carry_out", carry_out)
    done = run("call", "Host.getStats", *way)
    assert done.exit_code == 1
    assert "nested too deep" in done.stderr


@pytest.mark.parametrize("words", [["call", "Host.echo", "--timeout"], ["events", "--for"], ["status", "--interval"]])
@pytest.mark.parametrize("text", ["inf", "nan", "-1", "0"])
def test_a_time_without_end_or_sense_is_wrong_usage(agent, words, text):
    assert run(*words, text).exit_code == 2


@pytest.mark.parametrize("text", ["soon", "0"])
def test_a_time_that_is_none_is_told_in_words(text):
    assert f"{text} is no time to wait" in " ".join(run("events", "--for", text).stderr.split())


@pytest.mark.parametrize("words", [["--host", "x", "--port", "x", "status"], ["events", "--for", "soon"]])
def test_a_wrong_number_is_told_in_our_words_alone(words):
    said = " ".join(run(*words).stderr.split())
    assert "x is no port" in said or "soon is no time to wait" in said
    assert "Value error" not in said and "Input should" not in said


def test_the_version_is_an_option_too():
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, run("version").stdout)
    assert done.stdout.startswith("vdsm-agent ")


def test_looks_without_pause_are_wrong_usage(agent):
    assert run("status", "--interval", "0.4").exit_code == 2


def test_text_that_no_message_holds_is_wrong_usage(agent):
    done = run("call", "Host.echo", "message=\udcff")
    assert done.exit_code == 2
    assert "Host.echo can't be called with text that is not Unicode" in done.stderr


@pytest.mark.parametrize(
    ("host", "reason"), [("a..b", "that is no address"), ("\udcff", "that is no address"), ("127.0.0.1", "refused")]
)
def test_a_host_that_is_not_reached_is_said_so(host, reason):
    done = run("--host", host, "--port", "1", "--insecure", "call", "Host.ping2")
    assert done.exit_code == 3
    assert reason in done.stderr


@pytest.mark.parametrize("words", [["call", "Host.ping2"], ["status"], ["events", "--for", "5"]])
def test_another_host_is_where_the_command_goes(words, agent):
    done = run("--host", "127.0.0.1", "--port", "1", "--insecure", *words)
    assert done.exit_code == 3
    assert "127.0.0.1:1" in done.stderr


def test_unknown_verb_is_answered_with_the_near_one(agent):
    done = run("call", "Host.eko")
    assert done.exit_code == 2
    assert "did you mean Host.echo?" in done.stderr


def test_a_verb_unlike_any_is_answered_with_where_they_are_listed(agent):
    done = run("call", "Nothing.alike")
    assert done.exit_code == 2
    assert "vdsm doctor --api" in done.stderr


@pytest.mark.parametrize("option", [["--port", "54321"], ["--insecure"]])
def test_an_option_of_another_host_without_one_is_wrong_usage(option, agent):
    done = run(*option, "status")
    assert (done.exit_code, "--host" in done.stderr, done.stdout) == (2, True, "")


def test_an_import_of_nothing_is_wrong_usage(tmp_path):
    done = run("cert", "import", "--pki", str(tmp_path))
    assert (done.exit_code, "--certificate" in done.stderr) == (2, True)


def test_a_certificate_that_is_not_issued_leaves_no_folder(tmp_path):
    assert run("cert", "issue", "peer", "--out", str(tmp_path / "new"), "--pki", str(tmp_path)).exit_code == 1
    assert not (tmp_path / "new").exists()


def test_agent_not_running_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("VDSM_SOCKET", str(tmp_path / "none"))
    done = run("status")
    assert done.exit_code == 3
    assert "The agent does not run" in done.stderr and "systemctl start vdsm" in done.stderr


def test_status_shows_every_part_and_what_is_not_answered(agent):
    done = run("status")
    assert done.exit_code == 1  # an answer was an error
    for part in ("host-1", POOL, "main", DOMAIN, "Active", "bad (code 358)", "ovirtmgmt", "br[0]", "web", "1 min"):
        assert part in done.stdout, part
    assert f"SPM of {POOL}" in done.stdout.partition("Not answered")[2]


def test_status_as_json_has_what_was_answered(agent):
    seen = json.loads(run("status", "--json").stdout)
    assert seen["vms"][0]["vmId"] == "vm-1"
    assert list(seen["problems"]) == [f"SPM of {POOL}"]


def test_what_was_not_answered_is_unknown_and_no_figure(agent, monkeypatch):
    monkeypatch.delitem(ANSWERS, "Host.getCapabilities")
    text = run("status").stdout
    (memory,) = (line.split() for line in text.splitlines() if "memory" in line)
    assert memory == ["memory", "unknown", "?,", "250", "MiB", "free"]
    assert "software emulation" not in text
    monkeypatch.delitem(ANSWERS, "Host.getStats")
    lines = [line.split() for line in run("status").stdout.splitlines()]
    assert ["memory", "unknown", "?,", "?", "free"] in lines
    assert ["cpu", "unknown", "?", "threads,", "load", "?"] in lines
    assert ["agent", "running"] in lines


def test_watch_and_json_exclude_each_other(agent):
    assert run("status", "--watch", "--json").exit_code == 2


def test_serve_refuses_another_user(monkeypatch, capsys):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        serve.serve([])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_places_name_folder_and_remedy(tmp_path):
    paths = Paths(*(str(tmp_path / name) for name in ("rhev", "run", "state", "etc")), root_state=str(tmp_path / "x"))
    results = [result for result in places(paths) if result.what == "directory"]
    assert len(results) == 9 and all(result.level is Level.FAULT for result in results)
    assert all(result.remedy.startswith("install -d") for result in results)


def test_doctor_tells_every_verb_of_the_api_without_an_agent():
    lines = {line["verb"]: line for line in json.loads(run("doctor", "--api", "--json").stdout)}
    assert len(lines) == 205
    assert lines["Host.ping2"] == {"verb": "Host.ping2", "engine": True, "state": "built", "role": "reader"}
    assert lines["VM.create"]["state"].startswith("partial: ")
    assert lines["VM.desktopLock"] == {
        "verb": "VM.desktopLock",
        "engine": False,
        "state": "not built",
        "role": "operator",
    }
    assert "VM.reset" in run("doctor", "--api").stdout


def test_a_wide_table_becomes_a_block_for_each_entry(capsys):
    output.print_result([{f"key{n}": f"value {n}" for n in range(9)}, {"key0": "other"}])
    first, second = capsys.readouterr().out.split("\n\n")
    assert [line.split() for line in first.splitlines()] == [[f"key{n}", "value", str(n)] for n in range(9)]
    assert second.split() == ["key0", "other"]


# -- failures


def test_all_that_is_missing_is_said_at_once_and_nothing_is_sent(agent):
    done = run("call", "VM.make")
    assert (done.exit_code, done.stderr) == (2, "VM.make: still needs vmID, xml\n")


def test_an_entry_that_failed_is_an_error_with_its_reason(agent):
    done = run("call", "StoragePool.connectStorageServer")
    assert done.exit_code == 1
    assert f"{DOMAIN} has failed: There is no folder /srv/x (code 453)" in done.stderr
    assert POOL not in done.stderr
    assert POOL in done.stdout, "what was answered is shown all the same"


def test_an_error_is_json_for_scripts(agent):
    done = run("call", "Host.fail", "--json")
    told = {"message": "Host.fail: Volume does not exist (code 201)", "code": 201, "remedy": "Look at the domain"}
    assert (done.exit_code, done.stdout, json.loads(done.stderr)) == (1, "", {"error": {**told, "exit": 1}})


@pytest.mark.parametrize("words", [["call", "Host.eko"], ["status"], ["hooks", "try", "nope"], ["doctor"]])
def test_errors_of_every_command_are_json_for_scripts(agent, words):
    done = run("--host", "127.0.0.1", "--port", "1", "--insecure", *words, "--json")
    assert json.loads(done.stderr)["error"]["exit"] == done.exit_code != 0


def test_json_of_one_command_does_not_last_to_the_next(agent):
    run("call", "Host.fail", "--json")
    assert run("call", "Host.fail").stderr.startswith("Host.fail: ")


@pytest.mark.parametrize("words", [["hooks", "try", "befor_vm_start"], ["hooks", "trace", "--point", "befor_vm_start"]])
def test_a_point_that_is_none_is_wrong_usage(words):
    done = run(*words)
    assert done.exit_code == 2
    assert "did you mean before_vm_start?" in done.stderr


def test_a_point_without_its_document_is_wrong_usage():
    assert run("hooks", "try", "before_vm_start").exit_code == 2


@pytest.fixture
def three_lines():
    """The run of a script that failed with a long first line on its standard error."""
    said = "Traceback: " + "x" * 180 + "\n  line two of it\nKeyError: 'shelf'\n"
    script = ScriptRecord("50_shelf", Result.FAILED, "ended with exit code 1", code=1, stderr=said)
    return RunRecord("before_vm_start", 0.0, 0.1, (script,))


def test_the_trace_shows_whole_lines_of_the_end_of_stderr(three_lines, capsys):
    hooks._show_run(three_lines)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown[1].endswith("ended with exit code 1:")
    assert shown[2:] == ["...", "line two of it", "KeyError: 'shelf'"]


def test_a_trial_shows_all_of_stderr(three_lines, capsys):
    hooks.show_trial(Trial("", "", three_lines), as_json=False)
    assert "Traceback: xxx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No hook has run yet.\n"),
        (["--vm", "v1", "--point", "before_vm_start"], "The trace has no run of VM v1 at before_vm_start.\n"),
    ],
)
def test_an_empty_trace_says_of_what(words, said, monkeypatch):
    monkeypatch.setattr(hooks.trace, "read", lambda *_, **__: [])
    assert run("hooks", "trace", *words).stdout == said


def test_a_trace_that_this_user_may_not_read_is_said_so(monkeypatch):
    def read(folder, **_):
        raise PermissionError(13, "Permission denied", f"{folder}/trace.jsonl")

    monkeypatch.setattr(hooks.trace, "read", read)
    done = run("hooks", "trace")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "trace.jsonl: Permission denied" in done.stderr and "Run it as root" in done.stderr


def test_one_without_identity_is_told_so_when_it_asks_for_events(agent):
    done = run("events", "--for", "5")
    assert done.exit_code == 1
    assert "Access denied (code -32001)" in done.stderr and "vdsm-operator" in done.stderr
    assert "403" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [(["call", "Host.echo", "message=x", "--timeout", "0.2"], "--timeout"), (["status"], "journalctl")],
)
def test_the_remedy_of_a_time_out_is_one_that_the_command_has(tmp_path, monkeypatch, words, said):
    class Mute(BaseHTTPRequestHandler):
        def do_POST(self):
            ended.wait(10)

        def address_string(self):
            return "unix"

    ended = threading.Event()
    path = str(tmp_path / "vdsm.sock")
    monkeypatch.setenv("VDSM_SOCKET", path)
    monkeypatch.setattr("vdsm.cli.overview.TIMEOUT_S", 0.2)
    with ThreadingUnixStreamServer(path, Mute) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        done = run(*words)
        ended.set()
        server.shutdown()
    assert (done.exit_code, said in done.stderr, "--timeout" in done.stderr) == (4, True, said == "--timeout")


@pytest.mark.parametrize(
    "words",
    [
        ["vdsm.cli.vdsm_client", "VM", "create", "-h"],
        ["vdsm.cli", "doctor", "--api"],
        ["vdsm.cli", "hooks", "list", "--all"],
    ],
)
def test_a_reader_that_has_enough_is_no_fault(words):
    with subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        command.stdout.close()
        errors = command.stderr.read()
        assert (command.wait(), errors) == (141, b"")


@pytest.mark.parametrize("words", [["version"], ["doctor", "--api"], ["doctor", "--api", "--json"]])
def test_an_output_that_takes_nothing_is_said_in_one_line(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "vdsm.cli", *words], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"Standard output: No space left on device.\n")


@pytest.mark.parametrize("words", [["vdsm.cli", "version"], ["vdsm.cli", "hooks", "list"]])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_fault(words, closed):
    command = f"exec {sys.executable} -m {' '.join(words)} {closed}"
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


# -- how it looks


def terminal(monkeypatch, width):
    monkeypatch.setattr(
        output, "console", lambda: Console(highlight=False, width=width, force_terminal=True, color_system=None)
    )


def test_ids_are_whole_at_eighty_columns(agent, monkeypatch):
    terminal(monkeypatch, 80)
    vm = {"vmId": DOMAIN[:-1] + "c", "vmName": "long name " * 9, "status": "Down", "exitMessage": "why it ended " * 9}
    monkeypatch.setitem(ANSWERS, "Host.getAllVmStats", [vm])
    text = run("status").stdout
    assert POOL in text and DOMAIN in text and vm["vmId"] in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_wider_than_the_terminal_becomes_blocks(monkeypatch, capsys):
    terminal(monkeypatch, 60)
    output.print_result([{"id": POOL, "other": DOMAIN}])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["id", POOL], ["other", DOMAIN]]


@pytest.mark.parametrize("answer", [[{"id": POOL, "clusterCompatibilityLevels": "4.7"}], {"pool": POOL, "x": DOMAIN}])
def test_a_block_breaks_no_id_at_forty_columns(answer, monkeypatch, capsys):
    terminal(monkeypatch, 40)
    output.print_result(answer)
    lines = capsys.readouterr().out.splitlines()
    assert any(POOL in line for line in lines)
    assert max(len(line.rstrip()) for line in lines) <= 40


def test_status_is_read_at_forty_columns(agent, monkeypatch):
    terminal(monkeypatch, 40)
    lines = [line.split() for line in run("status").stdout.splitlines()]
    assert [POOL] in lines and [DOMAIN] in lines and ["health", "bad", "(code", "358)"] in lines


def test_a_trace_is_read_at_forty_columns(three_lines, monkeypatch, capsys):
    terminal(monkeypatch, 40)
    hooks._show_run(three_lines)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert ["script", "50_shelf"] in [line.split() for line in lines]
    for said in ("ended with exit code 1", "KeyError: 'shelf'"):
        assert any(said in line for line in lines)
    assert max(map(len, lines)) <= 40


def test_a_pipe_gets_each_row_on_a_line_of_its_own_without_blanks_at_its_end(capsys):
    output.print_result([{"id": POOL, "text": "x" * 300, "last": "y"}, {"id": DOMAIN, "text": "", "last": ""}])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1].endswith("x y".replace(" ", "  "))
    assert all(line == line.rstrip() for line in lines)


async def test_watching_into_a_pipe_gives_one_screen_after_the_other(agent, capsys, monkeypatch):
    looks = 0

    async def sleep(_):
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(watching.asyncio, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        await watching.watch_status(0.5)
    assert capsys.readouterr().out.count("Virtual machines") == 2


def test_a_screen_higher_than_the_terminal_says_how_much_is_left_out():
    text = "".join(f"line {n}\n" for n in range(30))
    lines = watching.fitting(text, 24).splitlines()
    assert len(lines) == 23
    assert lines[-2] == "line 21" and lines[-1].startswith("… and 8 lines more")
    assert watching.fitting(text, 31) == text


def test_an_event_begins_with_the_state():
    vm = {"hash": "-123", "statusTime": "1", "exitMessage": "Lost connection with QEMU", "status": "Down"}
    assert watching.words("vm-1", {"vm-1": vm}) == (
        'status=Down exitMessage="Lost connection with QEMU" hash=-123 statusTime=1'
    )
    assert watching.words("job-1", {"id": "job-1", "progress": 5}) == "progress=5"


# -- the doctor


def test_a_socket_that_this_user_may_not_open_is_no_fault(monkeypatch):
    def connect(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks.socket, "socket", lambda *_: _Socket(connect))
    result = checks._socket("libvirt", ["/run/libvirt/libvirt-sock"], "systemctl start libvirtd", "answers")
    assert result.level is Level.WARNING
    assert "as root" in result.remedy and "systemctl" not in result.remedy


class _Socket:
    def __init__(self, connect):
        self.connect = connect

    def settimeout(self, _):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def configured(tmp_path, text, mode=0o644):
    file = tmp_path / "vdsm.conf"
    file.write_text(text)
    file.chmod(mode)
    return list(doctor._configuration(Paths(etc=str(tmp_path), run=str(tmp_path), usr_lib=str(tmp_path))))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what the agent may not")
def test_a_configuration_that_only_root_reads_is_a_fault(tmp_path):
    (result,) = configured(tmp_path, "[agent]\nlog_level = INFO\n", mode=0o600)
    assert result.level is Level.FAULT
    assert result.remedy == f"chmod 0644 {tmp_path}/vdsm.conf"
    os.chown(tmp_path / "vdsm.conf", 36, 0)
    assert checks.closed_to_agent(str(tmp_path / "vdsm.conf")) is None


def test_a_limit_of_a_point_that_is_none_is_warned_about(tmp_path):
    (result,) = configured(tmp_path, "[hook_timeouts]\nbefore_vm_strt = 5\n")
    assert result.level is Level.WARNING
    assert result.found.endswith("before_vm_strt: there is no such hook point; did you mean before_vm_start?")


def test_a_configuration_in_order_is_good(tmp_path):
    (result,) = configured(tmp_path, "[hook_timeouts]\nbefore_vm_start/50_a = 5\n")
    assert (result.level, result.found) == (Level.GOOD, f"{tmp_path}/vdsm.conf")


def test_a_key_that_this_user_may_not_read_is_no_fault(tmp_path, monkeypatch):
    keeping.init(str(tmp_path), ["host-1"], days=30, force=False)
    monkeypatch.setattr(doctor.os, "access", lambda file, mode: not file.endswith("vdsmkey.pem"))
    results = list(doctor._certificates(Paths(pki=str(tmp_path))))
    assert {result.level for result in results} == {Level.WARNING}
    assert "as root" in results[0].remedy


@pytest.mark.parametrize("file", ["vdsm.conf", "access.toml"])
def test_the_doctor_s_remedy_is_not_the_doctor(tmp_path, monkeypatch, file):
    monkeypatch.setenv("VDSM_SOCKET", str(tmp_path / "none"))
    (tmp_path / file).write_text("[agent]\nno_such = key\n[[\n")
    paths = Paths(etc=str(tmp_path), run=str(tmp_path), usr_lib=str(tmp_path))
    results = [*doctor._configuration(paths), *doctor._access(paths), asyncio.run(doctor._agent())]
    faults = [result for result in results if result.level is Level.FAULT]
    assert len(faults) == 2
    assert all(result.remedy and "doctor" not in result.remedy for result in faults)


async def test_a_root_helper_that_takes_connections_and_answers_nothing_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_ANSWER_S", 0.1)
    path = str(tmp_path / "root.sock")
    async with await asyncio.start_unix_server(lambda reader, writer: None, path):
        result = await doctor._root_helper(path)
    assert (result.level, "vdsm-root" in result.remedy) == (Level.FAULT, True)


@pytest.mark.parametrize(("number", "said"), [(0, "0 faults"), (1, "1 fault"), (2, "2 faults")])
def test_numbers_and_words_agree(number, said):
    assert output.count(number, "fault") == said


DOWN = {
    "vmId": "6a3b1f0e-0000-4000-8000-000000000001",
    "vmName": "web1",
    "status": "Down",
    "exitMessage": "Volume 0a000000-0000-4000-8000-000000000004 does not exist in domain "
    "0a000000-0000-4000-8000-000000000002",
}


@pytest.mark.parametrize("width", [48, 80, 100])
def test_an_id_in_why_a_vm_is_down_is_not_broken(width, monkeypatch, capsys):
    monkeypatch.setattr(output, "console", lambda: Console(width=width, highlight=False))
    output.show(overview.screen(overview.Overview(vms=[DOWN])))
    shown = capsys.readouterr().out
    for part in ("000000000001", "000000000002", "000000000004"):
        assert f"-0000-4000-8000-{part}" in shown


@pytest.mark.parametrize("words", [[], ["call"], ["hooks"], ["hooks", "lint"], ["cert"], ["doctor"]])
def test_the_short_help_option_is_one_too(words):
    told = CliRunner().invoke(app, [*words, "-h"])
    assert told.exit_code == 0
    assert "Usage:" in told.output


@pytest.mark.parametrize(("is_terminal", "shown"), [(True, "none"), (False, "")])
def test_an_empty_list_is_said_to_be_one_to_people(is_terminal, shown, monkeypatch, capsys):
    monkeypatch.setattr(output, "console", lambda: Console(force_terminal=is_terminal, color_system=None))
    output.print_result([])
    assert capsys.readouterr().out.strip() == shown


class _Listener:
    """Takes connections as a stopped daemon does: in the kernel. ``answer`` is sent to each that is accepted."""

    def __init__(self, path, answer=None):
        self.path, self.answer = path, answer
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(8)

    def __enter__(self):
        if self.answer is not None:
            threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        peer, _ = self.socket.accept()
        with peer:
            self.asked = peer.recv(4096)
            peer.sendall(self.answer)

    def __exit__(self, *_):
        self.socket.close()


LIBVIRT_ANSWER = struct.pack(">7I4x", 32, 0x20008086, 1, 66, 1, 1, 0)


@pytest.mark.parametrize(
    ("answer", "level", "found"),
    [
        (None, Level.FAULT, "takes connections and does not answer"),
        (b"", Level.FAULT, "takes connections and does not answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2, Level.FAULT, "what answers there is no libvirt"),
        (LIBVIRT_ANSWER, Level.GOOD, "answers at"),
    ],
    ids=["stopped", "hangs up", "another", "libvirt"],
)
def test_a_libvirt_that_is_stopped_does_not_answer(answer, level, found, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "_ANSWER_S", 0.05)
    with _Listener(tmp_path / "libvirt-sock", answer):
        seen = checks.libvirt([str(tmp_path / "libvirt-sock")])
    assert seen.level is level
    assert found in seen.found


def test_a_folder_without_any_room_is_a_fault(tmp_path, monkeypatch):
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 100, 100, 100, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    paths = Paths(run=str(tmp_path), state=str(tmp_path), log=str(tmp_path))
    found = [result for result in places(paths) if result.what == "disk space"]
    assert {result.level for result in found} == {Level.FAULT}


def test_an_event_says_its_id_once():
    params = {"a1": {"status": "Up", "vmId": "a1", "hash": "x"}, "notify_time": 7}
    assert watching.words("a1", {"a1": params["a1"]}) == "status=Up hash=x"
    assert watching.words("a1", {"point": "after_vm_start", "vmId": "a1"}) == "point=after_vm_start"


def test_a_call_waits_longer_than_the_agent_for_libvirt():
    """Else the reason that the agent gives then is never seen. A pause is a look, the change, and a look."""
    default = next(p.default for p in typer.main.get_command(app).commands["call"].params if p.name == "timeout")
    assert default > libvirt_hypervisor._CHANGE_S + 2 * libvirt_hypervisor._READ_S
