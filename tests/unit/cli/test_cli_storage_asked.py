# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage`: what the agent answers, as a person sees it; what is wrong, and what to do."""

import copy
import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import pytest
from typer.testing import CliRunner

from vdsm.cli import doctor, output
from vdsm.cli.app import app
from vdsm.cli.checks import Level
from vdsm.cli.storage import asked, faults, tasks
from vdsm.cli.storage import commands as commands_module
from vdsm.cli.storage.connections import Seen
from vdsm.common.paths import Paths

POOL = "0a000000-0000-4000-8000-000000000001"
DATA = "0b000000-0000-4000-8000-000000000002"
OTHER = "0c000000-0000-4000-8000-000000000003"
TASK = "0d000000-0000-4000-8000-000000000004"
SERVER = "server:/srv/vms"
GIB = 1 << 30

HEALTH = {
    "checked": True,
    "valid": True,
    "code": 0,
    "reason": "",
    "sinceSeconds": 7200.0,
    "hostIdHeld": True,
    "lastCheckSeconds": 3.0,
    "delaySeconds": 0.0012,
    "total": 100 * GIB,
    "free": 25 * GIB,
}
DOMAIN = {
    "id": DATA,
    "status": "Active",
    "mount": "/rhev/data-center/mnt/server:_srv_vms",
    "hostId": 1,
    "trouble": "",
    "name": "data [1]",
    "kind": "NFS",
    "class": "Data",
    "role": "Master",
    "version": 5,
    "pools": [POOL],
    "server": SERVER,
    "health": HEALTH,
}
FOREIGN = {**DOMAIN, "id": OTHER, "status": None, "hostId": None, "name": "other", "role": "Regular", "health": None}
LEASE = {
    "resource": "SDM",
    "image": "",
    "version": 7,
    "hostId": 2,
    "generation": 4,
    "name": "node[2]",
    "status": "live",
    "here": False,
    "pid": None,
    "writers": [],
    "ended": False,
}
FREE = {**LEASE, "hostId": None, "name": "", "status": "free", "generation": 0}
KEPT = {**LEASE, "hostId": 1, "here": True, "pid": 42, "writers": ["43 (python3)"], "ended": True}
POOL_ROW = {
    "id": POOL,
    "name": "first",
    "version": 5,
    "master": DATA,
    "masterVersion": 3,
    "hostId": 1,
    "spmStatus": "SPM",
    "spmLease": {**LEASE, "hostId": 1, "here": True, "pid": 42},
    "spmEnded": "",
    "trouble": "",
    "domains": {DATA: "Active", OTHER: "Attached"},
}
HOSTS = {
    "domain": DATA,
    "shared": True,
    "limitSeconds": 80.0,
    "trouble": "",
    "hosts": [
        {"hostId": 1, "name": "n1", "status": "live", "generation": 1, "here": True, "renewedSeconds": 4.0},
        {"hostId": 2, "name": "n2", "status": "dead", "generation": 4, "here": False, "renewedSeconds": None},
        {"hostId": 3, "name": "n3", "status": "live", "generation": 2, "here": False, "renewedSeconds": None},
    ],
}
RUNNING = {
    "id": TASK,
    "kind": "task",
    "verb": "createVolume",
    "state": "running",
    "isDone": False,
    "failed": False,
    "progress": 50.0,
    "code": 0,
    "message": "Task is running",
    "result": "",
}
ENDED = {**RUNNING, "state": "finished", "isDone": True, "progress": 100.0, "result": "volume-1"}
FAILED = {**ENDED, "state": "recovered", "failed": True, "code": 212, "message": "Volume [v] exists already"}
LOCK = {
    "lock": f"00_storage/{DATA}",
    "mode": "shared",
    "holders": [{"who": "task 1 (deleteImage)", "seconds": 90.0}],
    "waiting": [{"who": "StorageDomain.detach", "mode": "exclusive", "seconds": 61.0}],
}
WELL = {
    "storage.getPools": [POOL_ROW],
    "storage.getDomains": [DOMAIN],
    "storage.getHosts": [HOSTS],
    "storage.getLeases": [{"domain": DATA, "trouble": "", "unread": 0, "leases": [POOL_ROW["spmLease"]]}],
    "storage.getTasks": [],
    "storage.getLocks": [],
}


class Agent:
    """Answers of a verb: a list, an error, or several lists, one after the other."""

    def __init__(self):
        self.answers = copy.deepcopy(WELL)
        self.asked = []

    def answer(self, request):
        self.asked.append((request["method"], request.get("params")))
        answer = self.answers[request["method"]]
        if isinstance(answer, dict):
            return {"error": answer}
        return {"result": next(answer) if not isinstance(answer, list) else answer}


@pytest.fixture
def agent(tmp_path, monkeypatch):
    made = Agent()

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps({"jsonrpc": "2.0", "id": request["id"], **made.answer(request)}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

        def address_string(self):
            return "unix"

    path = str(tmp_path / "vdsm.sock")
    monkeypatch.setenv("VDSM_SOCKET", path)
    paths = Paths(repository=str(tmp_path / "rhev"), run=str(tmp_path / "run"))
    monkeypatch.setattr(commands_module, "Paths", lambda: paths)
    with ThreadingUnixStreamServer(path, Answers) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def run(*words):
    return CliRunner().invoke(app, ["storage", *words])


def lines(*words):
    done = run(*words)
    assert done.exit_code == 0, done.output
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


# Each table


def test_a_pool_is_shown_with_its_spm_and_its_domains(agent):
    agent.answers["storage.getDomains"] = [DOMAIN, FOREIGN]
    shown = lines("pools")
    assert shown[1] == f"{POOL} first this host V5 3 host id 1"
    assert shown[3:] == [f"{DATA} data [1] active master", f"{OTHER} other attached"]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"spmStatus": "Free", "spmLease": LEASE}, "host id 2 node[2], live"),
        ({"spmStatus": "Free", "spmLease": FREE}, "nobody"),
        ({"spmStatus": "Contend", "spmLease": FREE}, "this host is about to be"),
        ({"spmStatus": "Free", "spmLease": None, "trouble": "it did not answer"}, "not known: it did not answer"),
    ],
)
def test_who_is_spm_is_shown(agent, change, shown):
    agent.answers["storage.getPools"] = [{**POOL_ROW, **change}]
    assert f" first {shown} V5" in lines("pools")[1]


def test_no_pool_is_said_so(agent):
    agent.answers["storage.getPools"] = []
    assert lines("pools") == ["This host is connected to no pool."]


def test_a_domain_is_shown_with_its_health_room_and_place(agent):
    (shown,) = lines("domains")[1:]
    assert shown == (
        f"{DATA} data [1] data NFS V5 master active valid for 2 h 0 min 1 held ━━━━━━━━━━━━ 75 % 25.0 GiB free of"
        f" 100.0 GiB 1.2 ms 3 s ago {SERVER} /rhev/data-center/mnt/server:_srv_vms"
    )


def test_a_domain_that_is_bad_is_shown_with_since_when_and_why(agent):
    bad = {**HEALTH, "valid": False, "code": 200, "reason": "It [x] did not answer", "sinceSeconds": 61.0}
    agent.answers["storage.getDomains"] = [{**DOMAIN, "health": bad}]
    (shown,) = lines("domains")[1:]
    assert "bad (200) for 1 min" in shown
    assert shown.endswith("It [x] did not answer")


def test_hosts_are_shown_with_who_is_alive_and_which_one_is_this(agent):
    assert lines("hosts") == [
        f"{DATA} data [1]",
        "host id name state renewed generation",
        "1 n1 live 4 s ago 1 this host",
        "2 n2 dead not for 1 min 4",
        "3 n3 live within 1 min 2",
    ]


def test_hosts_of_storage_that_does_not_answer_are_shown_beside_that(agent):
    agent.answers["storage.getHosts"] = [
        {**HOSTS, "trouble": "The storage [x] did not answer"},
        {**HOSTS, "domain": OTHER, "shared": False, "hosts": []},
    ]
    shown = lines("hosts")
    assert shown[1:4] == [
        "no answer: The storage [x] did not answer",
        "host id name state renewed generation",
        "1 n1 live 4 s ago 1 this host",
    ]
    assert shown[-2:] == [OTHER, "no host ids: only this host uses it"]


def test_leases_are_shown_with_their_holders_and_who_keeps_them_here(agent):
    volume = {**LEASE, "resource": "v1", "image": "i1", "version": 1}
    agent.answers["storage.getLeases"] = [{"domain": DATA, "trouble": "", "unread": 3, "leases": [KEPT, volume, FREE]}]
    shown = lines("leases")
    assert shown[2] == "SDM this host, host id 1 7 times 4 42 which has ended 43 (python3)"
    assert shown[3] == "volume v1 host id 2 node[2], live once 4 i1"
    assert shown[4].startswith("SDM free")
    assert shown[5] == "3 volumes more: their leases were not read"


def test_tasks_are_shown_with_how_far_they_are_or_how_they_ended(agent):
    agent.answers["storage.getTasks"] = [RUNNING, {**ENDED, "id": POOL}, {**FAILED, "id": OTHER}]
    assert lines("tasks")[1:] == [
        f"{TASK} createVolume running ━━━━━━━━━━━━ 50 %",
        f"{POOL} createVolume finished volume-1",
        f"{OTHER} createVolume recovered Volume [v] exists already (code 212)",
    ]


@pytest.mark.parametrize("what", ["pools", "domains", "hosts", "leases", "tasks"])
def test_json_is_what_the_agent_says(agent, what):
    agent.answers["storage.getTasks"] = [RUNNING]
    done = run(what, "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, agent.answers[f"storage.get{what.capitalize()}"])


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("words", [[], ["pools"], ["domains"], ["hosts"], ["leases"], ["tasks"]])
def test_on_a_narrow_screen_nothing_is_wider_and_no_id_is_broken(agent, monkeypatch, words, width):
    class Screen(output._Screen):
        def __init__(self, **_):
            super().__init__(highlight=False, width=width, force_terminal=True, no_color=True)

    monkeypatch.setattr(output, "_Screen", Screen)
    agent.answers["storage.getDomains"] = [{**DOMAIN, "health": {**HEALTH, "valid": False, "reason": f"{DATA} is bad"}}]
    agent.answers["storage.getTasks"] = [RUNNING, FAILED]
    shown = re.sub(r"\x1b\[[\d;]*m", "", run(*words).stdout)
    assert max(map(len, shown.splitlines())) <= width
    assert re.findall(r"0[abd]000000-0{4}-4000-8000-0{11}[124]", shown)
    assert not re.search(r"0[abd]000000-(?!0{4}-4000-8000-0{11}[124])", shown)


# Which domain is meant


@pytest.mark.parametrize("word", [OTHER, "0c0", "other"])
def test_a_domain_is_meant_by_its_id_the_beginning_of_it_or_its_name(agent, word):
    agent.answers["storage.getDomains"] = [DOMAIN, FOREIGN]
    run("leases", word)
    assert ("storage.getLeases", {"domain": OTHER}) in agent.asked


@pytest.mark.parametrize(("word", "told"), [("0", "more than one domain"), ("nope", "no domain of this host")])
def test_a_word_that_means_no_domain_or_several_is_wrong_usage(agent, word, told):
    agent.answers["storage.getDomains"] = [DOMAIN, FOREIGN]
    done = run("hosts", word)
    assert (done.exit_code, told in done.stderr, DATA in done.stderr) == (2, True, True)


def test_ids_of_domains_are_completed_with_their_names(agent):
    agent.answers["storage.getDomains"] = [DOMAIN, FOREIGN]
    assert asked.complete("0c") == [(OTHER, "other")]


def test_nothing_is_completed_without_an_agent(monkeypatch, tmp_path):
    monkeypatch.setenv("VDSM_SOCKET", str(tmp_path / "none"))
    assert asked.complete("") == []


# Following


def test_followed_tasks_are_told_until_all_have_ended(agent, monkeypatch):
    monkeypatch.setattr(tasks, "LOOK_S", 0.01)
    agent.answers["storage.getTasks"] = iter([[RUNNING], [RUNNING], [{**RUNNING, "progress": 75.0}], [ENDED]])
    assert lines("tasks", "--follow") == [
        f"{TASK} createVolume running 50 %",
        f"{TASK} createVolume running 75 %",
        f"{TASK} createVolume finished volume-1",
    ]


def test_bars_of_followed_tasks_move_on_a_terminal(agent, monkeypatch):
    class Screen(output._Screen):
        def __init__(self, **_):
            super().__init__(highlight=False, width=80, force_terminal=True)

    monkeypatch.setattr(output, "_Screen", Screen)
    monkeypatch.setattr(tasks, "LOOK_S", 0.01)
    agent.answers["storage.getTasks"] = iter([[RUNNING], [{**RUNNING, "progress": 75.0}], [ENDED]])
    shown = run("tasks", "--follow").stdout
    assert shown.index("50 %") < shown.index("75 %") < shown.index("volume-1")


def test_tasks_that_are_cleared_meanwhile_end_the_following(agent, monkeypatch):
    class Screen(output._Screen):
        def __init__(self, **_):
            super().__init__(highlight=False, width=80, force_terminal=True)

    monkeypatch.setattr(output, "_Screen", Screen)
    monkeypatch.setattr(tasks, "LOOK_S", 0.01)
    agent.answers["storage.getTasks"] = iter([[RUNNING], []])
    done = run("tasks", "--follow")
    assert (done.exit_code, "50 %" in done.stdout) == (0, True)


def test_a_followed_task_that_failed_is_an_error(agent, monkeypatch):
    agent.answers["storage.getTasks"] = [FAILED]
    assert run("tasks", "--follow").exit_code == 1


def test_following_asks_and_nothing_else(agent, monkeypatch):
    monkeypatch.setattr(tasks, "LOOK_S", 0.01)
    agent.answers["storage.getTasks"] = iter([[RUNNING], [ENDED]])
    run("tasks", "--follow")
    assert {verb for verb, _ in agent.asked} == {"storage.getTasks"}


def test_following_is_for_people(agent):
    assert run("tasks", "--follow", "--json").exit_code == 2


# All of it


def test_a_host_that_is_well_is_said_so_first(agent):
    shown = lines()
    assert shown[0] == "✔ nothing is wrong"
    assert f"{DATA} data [1] 2 live, 1 dead" in shown


def test_what_is_wrong_stands_first_with_what_to_do_and_is_a_finding(agent):
    bad = {**HEALTH, "valid": False, "code": 385, "reason": "It is mounted read-only"}
    agent.answers |= {"storage.getDomains": [{**DOMAIN, "health": bad}], "storage.getTasks": [FAILED]}
    done = run()
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.exit_code == 5
    assert shown[0] == f"✘ domain data [1] {DATA} ({SERVER}) is bad for 2 h 0 min: It is mounted read-only"
    assert shown[1].startswith("→ on the server: rw for this host")
    assert shown[2].startswith(f"! task {TASK} (createVolume) failed: Volume [v] exists already (code 212)")


def test_what_only_waits_for_somebody_is_shown_and_no_finding(agent):
    agent.answers["storage.getLocks"] = [LOCK]
    done = run()
    assert (done.exit_code, done.stdout.startswith("! StorageDomain.detach waits")) == (0, True)


def test_a_question_without_an_answer_costs_its_part_only(agent):
    agent.answers["storage.getTasks"] = {"code": 100, "message": "the SPM process hangs"}
    done = run()
    assert (done.exit_code, done.stdout.splitlines()[0]) == (5, "✘ tasks: the SPM process hangs (code 100)")
    assert DATA in done.stdout


def test_a_pool_that_is_not_told_is_not_said_to_be_none(agent):
    agent.answers["storage.getPools"] = {"code": -32001, "message": "Access denied"}
    done = run()
    assert (done.exit_code, "pools: Access denied" in done.stdout, "no pool" in done.stdout) == (5, True, False)


def test_all_of_it_as_json_has_the_faults_too(agent):
    agent.answers["storage.getLocks"] = [LOCK]
    told = json.loads(run("--json").stdout)
    assert [told[name] for name in ("pools", "domains", "hosts")] == [[POOL_ROW], [DOMAIN], [HOSTS]]
    assert [fault["is_warning"] for fault in told["faults"]] == [True]


@pytest.mark.parametrize("words", [[], ["pools"], ["domains"], ["hosts"], ["leases"], ["tasks"], ["tasks", "-f"]])
def test_an_agent_that_is_down_is_said_so(monkeypatch, tmp_path, words):
    monkeypatch.setenv("VDSM_SOCKET", str(tmp_path / "none"))
    done = run(*words)
    assert (done.exit_code, "The agent does not run" in done.stderr) == (3, True)


# What is wrong


def of_domain(**health):
    return [fault.what for fault in faults.of_domains([{**DOMAIN, "health": {**HEALTH, **health}}])]


def test_a_domain_that_is_well_is_no_fault():
    assert of_domain() == []


def test_a_host_id_that_is_not_held_is_a_fault_when_it_says_why_else_it_is_waited_for():
    (told,) = faults.of_domains([{**DOMAIN, "health": {**HEALTH, "hostIdHeld": False, "reason": "host x holds it"}}])
    assert (told.what, told.is_warning) == (f"domain data [1] {DATA}: host x holds it", False)
    (told,) = faults.of_domains([{**DOMAIN, "health": {**HEALTH, "hostIdHeld": False}}])
    assert (told.what, told.is_warning) == (f"domain data [1] {DATA}: host id 1 is being acquired", True)


def test_a_full_domain_is_a_fault():
    assert of_domain(reason="The storage is full") == [f"domain data [1] {DATA}: The storage is full"]


def test_a_domain_that_was_not_looked_at_yet_is_no_fault():
    assert of_domain(checked=False, valid=False) == []


@pytest.mark.parametrize("code", [200, 384, 385, 469])
@pytest.mark.parametrize("kind", ["NFS", "POSIXFS", "LOCALFS"])
def test_what_to_do_names_a_server_where_there_is_one(kind, code):
    (told,) = faults.of_domains([{**DOMAIN, "kind": kind, "health": {**HEALTH, "valid": False, "code": code}}])
    assert ("server" in told.do) is (kind == "NFS")


def test_a_lease_that_left_over_writers_keep_is_a_fault():
    (told,) = faults.of_leases([{"domain": DATA, "leases": [KEPT, LEASE, FREE]}])
    assert "process 42, which has ended, keep its lease: 43 (python3)" in told.what


@pytest.mark.parametrize(
    ("lease", "told"),
    [(FREE, "has no SPM"), ({**LEASE, "status": "dead"}, "host id 2 (node[2]), is dead"), (LEASE, None), (None, None)],
)
def test_a_pool_without_a_live_spm_is_told(lease, told):
    found = list(faults.of_pools([{**POOL_ROW, "spmStatus": "Free", "spmLease": lease}]))
    assert [told in fault.what for fault in found] == ([] if told is None else [True])


def test_a_pool_without_an_spm_says_how_this_hosts_ended():
    pool = {**POOL_ROW, "spmStatus": "Free", "spmLease": FREE, "spmEnded": "process 42 was killed by signal 9"}
    (told,) = faults.of_pools([pool])
    assert told.what.endswith("(on this host: process 42 was killed by signal 9)")


def test_a_connection_that_failed_is_a_fault():
    failed = Seen("f", "NFS", SERVER, "failed", "access denied", [], [])
    well = Seen("f", "NFS", SERVER, "connected", "", [], [])
    (told,) = faults.of_connections([failed, well])
    assert told.what == f"NFS connection {SERVER} has failed: access denied"
    assert "disconnectStorageServer" in told.do  # one that was mistyped stays until it is given up


def test_who_waits_long_for_a_lock_is_told_with_who_has_it():
    (told,) = faults.of_locks([LOCK])
    assert told.what == f"StorageDomain.detach waits for 1 min for 00_storage/{DATA}, which task 1 (deleteImage) has"
    assert list(faults.of_locks([{**LOCK, "waiting": [{**LOCK["waiting"][0], "seconds": 5.0}]}])) == []


def test_no_lock_at_all_is_said_so(agent):
    assert run("locks").stdout == "No lock is held, and nobody waits for one.\n"


# The doctor


async def test_the_doctor_tells_of_a_domain_that_is_bad(agent):
    agent.answers["storage.getDomains"] = [{**DOMAIN, "health": {**HEALTH, "valid": False, "reason": "gone"}}]
    (result,) = await doctor._domains()
    assert (result.what, result.level, "gone" in result.found) == ("storage", Level.FAULT, True)
    assert result.remedy


async def test_the_doctor_tells_of_domains_that_are_well(agent):
    (result,) = await doctor._domains()
    assert (result.level, result.found) == (Level.GOOD, "1 domain of the pool, all valid")


async def test_the_doctor_says_nothing_of_domains_without_an_agent(monkeypatch, tmp_path):
    monkeypatch.setenv("VDSM_SOCKET", str(tmp_path / "none"))
    assert await doctor._domains() == []


def test_the_doctor_tells_of_a_lease_that_a_left_over_writer_keeps(tmp_path):
    paths = Paths(run=str(tmp_path))
    leader = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    writer = int(leader.stdout.readline())
    leader.wait()
    try:
        os.makedirs(paths.leased)
        with open(os.path.join(paths.leased, DATA), "w") as f:
            f.write(f"{leader.pid}\n")
        (result,) = doctor._leases(paths)
        assert (result.what, result.level) == ("leases", Level.FAULT)
        assert f"domain {DATA}: writers of process {leader.pid}, which has ended" in result.found
        assert f"{writer} (" in result.found
    finally:
        os.kill(writer, 9)
        leader.stdout.close()
