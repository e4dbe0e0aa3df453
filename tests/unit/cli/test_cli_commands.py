# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands against a small JSON-RPC server on a unix socket: output, errors, exit codes."""

import functools
import json
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import pytest
from typer.testing import CliRunner

from vdsm.cli import connection, output, serve
from vdsm.cli.app import app
from vdsm.cli.checks import Level, places
from vdsm.common.paths import Paths

DOCUMENT = {
    "methods": [
        {"name": name, "params": [{"name": key, "schema": {"type": kind}} for key, kind in params.items()]}
        for name, params in {"Host.echo": {"message": "string"}, "Host.fail": {}, "Volume.list": {}}.items()
    ]
}
ERROR = {"code": 201, "message": "Volume does not exist", "data": {"remedy": "Look at the domain"}}
POOL, DOMAIN = "6a3b1f0e-0000-4000-8000-00000000000a", "6a3b1f0e-0000-4000-8000-00000000000b"
ANSWERS = {
    "rpc.discover": DOCUMENT,
    "Volume.list": [{"id": "v1", "size": 5}, {"id": "v2"}],
    "Host.getCapabilities": {"uuid": "host-1", "memSize": "1000", "networks": {"ovirtmgmt": {"iface": "br[0]"}}},
    "Host.getStats": {"cpuIdle": "50.00", "memFree": 250, "storageDomains": {DOMAIN: {"valid": False, "code": 358}}},
    "Host.getAllVmStats": [{"vmId": "vm-1", "vmName": "web", "status": "Up", "elapsedTime": "61"}],
    "Host.getConnectedStoragePools": [POOL],
    "StoragePool.getInfo": {"info": {"name": "main"}, "dominfo": {DOMAIN: {"status": "Active"}}},
}


class Answers(BaseHTTPRequestHandler):
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


def test_list_of_objects_is_a_table_for_people(agent):
    lines = run("call", "Volume.list").stdout.splitlines()
    assert [line.split() for line in lines] == [["id", "size"], ["v1", "5"], ["v2"]]


def test_error_answered_shows_message_code_and_remedy(agent):
    done = run("call", "Host.fail")
    assert done.exit_code == 1
    assert "Host.fail: Volume does not exist (code 201)" in done.stderr and "Look at the domain" in done.stderr


@pytest.mark.parametrize("way", [[], ["--json"]])
def test_an_answer_too_deep_to_be_shown_is_said_so(way, monkeypatch):
    def carry_out(work):
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


def test_agent_not_running_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("VDSM_SOCKET", str(tmp_path / "none"))
    done = run("status")
    assert done.exit_code == 3
    assert "The agent does not run" in done.stderr and "systemctl start vdsm" in done.stderr


def test_status_shows_every_part_and_what_is_not_answered(agent):
    done = run("status")
    assert done.exit_code == 0
    for part in ("host-1", POOL, "main", DOMAIN, "Active", "bad (code 358)", "ovirtmgmt", "br[0]", "web", "1 min"):
        assert part in done.stdout, part
    assert f"SPM of {POOL}" in done.stdout.partition("Not answered")[2]


def test_status_as_json_has_what_was_answered(agent):
    seen = json.loads(run("status", "--json").stdout)
    assert seen["vms"][0]["vmId"] == "vm-1"
    assert list(seen["problems"]) == [f"SPM of {POOL}"]


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
    assert len(results) == 5 and all(result.level is Level.FAULT for result in results)
    assert all(result.remedy.startswith("install -d") for result in results)


def test_doctor_tells_every_verb_of_the_api_without_an_agent():
    lines = {line["verb"]: line for line in json.loads(run("doctor", "--api", "--json").stdout)}
    assert len(lines) == 205
    assert lines["Host.ping2"] == {"verb": "Host.ping2", "engine": True, "state": "built", "role": "reader"}
    assert lines["VM.create"]["state"].startswith("partial: ")
    assert lines["VM.reset"] == {"verb": "VM.reset", "engine": True, "state": "not built", "role": "operator"}
    assert "VM.reset" in run("doctor", "--api").stdout


def test_a_wide_table_becomes_a_block_for_each_entry(capsys):
    output.print_result([{f"key{n}": f"value {n}" for n in range(9)}, {"key0": "other"}])
    first, second = capsys.readouterr().out.split("\n\n")
    assert [line.split() for line in first.splitlines()] == [[f"key{n}", "value", str(n)] for n in range(9)]
    assert second.split() == ["key0", "other"]
