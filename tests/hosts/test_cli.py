# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line on a real host with its agent."""

import json
import re

import pytest

from contrib.lab.spec import PYTHON

pytestmark = pytest.mark.cost(3)


def vdsm(host, *words, user="root", stdin=b"", check=False):
    return host.run([PYTHON, "-m", "vdsm.cli", *words], user=user, stdin=stdin, check=check)


def test_status_shows_host_and_agent_on_one_screen(agent_host):
    done = vdsm(agent_host, "status")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert agent_host.spec.host_id in text
    assert re.search(r"agent\s+running", text) and "Virtual machines" in text
    assert len(text.splitlines()) < 40


def test_status_shows_pool_and_domain(agent_host, pool):
    text = vdsm(agent_host, "status").stdout.decode()
    assert pool.pool_id in text and pool.domain_id in text
    assert re.search(r"\bSPM\b", text) and "good" in text
    seen = json.loads(vdsm(agent_host, "status", "--json").stdout)
    assert seen["stats"]["storageDomains"][pool.domain_id]["valid"] is True


def test_call_types_its_words(agent_host, pool):
    done = vdsm(agent_host, "call", "StorageDomain.getInfo", f"storagedomainID={pool.domain_id}", "--json")
    assert json.loads(done.stdout)["uuid"] == pool.domain_id
    done = vdsm(agent_host, "call", "Host.echo", "-", "--json", stdin=b'{"message": "hello"}')
    assert json.loads(done.stdout) == "hello"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("call", "Host.getStat"), 2, "did you mean Host.getStats?"),
        (("call", "Host.echo", "mesage=x"), 2, "did you mean message?"),
        (("call", "Volume.getInfo", "{}"), 2, "still needs volumeID, storagepoolID, storagedomainID, imageID"),
        (("call", "Volume.getInfo", '["x"]'), 1, "(code -32602)"),
    ],
)
def test_wrong_calls_say_what_and_with_which_code(agent_host, words, code, said):
    done = vdsm(agent_host, *words)
    assert (done.returncode, said in done.stderr.decode()) == (code, True), done.stderr


def test_events_are_followed_while_they_come(agent_host, pool):
    done = vdsm(agent_host, "events", "--for", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert all(json.loads(line)["method"].startswith("|") for line in done.stdout.splitlines())


def test_capabilities_are_of_the_real_libvirt(agent_host):
    caps = json.loads(vdsm(agent_host, "call", "Host.getCapabilities", "--json").stdout)
    assert caps["uuid"] == agent_host.spec.host_id
    assert any(name.startswith("pc-q35-") for name in caps["emulatedMachines"])
    assert any(flag.startswith("model_") for flag in caps["cpuFlags"].split(","))


def test_doctor_finds_the_lab_host_fit_and_names_what_is_broken(agent_host):
    def results():
        return {(r["what"], r["found"]): r for r in json.loads(vdsm(agent_host, "doctor", "--json").stdout)}

    found = {r["what"]: r["level"] for r in results().values()}
    for what in ("agent", "root helper", "libvirt", "sanlock", "user", "qemu-img"):
        assert found[what] == "good", results()
    agent_host.run(["chmod", "o+w", "/var/lib/vdsm"])
    try:
        done = vdsm(agent_host, "doctor")
    finally:
        agent_host.run(["chmod", "o-w", "/var/lib/vdsm"])
    assert done.returncode == 5
    assert "chmod o-w /var/lib/vdsm" in done.stdout.decode()


def test_serve_refuses_every_user_but_36(fresh_host):
    done = vdsm(fresh_host, "serve")
    assert done.returncode == 2
    assert len(done.stderr.decode().splitlines()) == 1 and "36" in done.stderr.decode()


def test_without_agent_it_says_so_and_hooks_still_work(fresh_host):
    done = vdsm(fresh_host, "status")
    assert done.returncode == 3
    assert "The agent does not run" in done.stderr.decode()
    assert vdsm(fresh_host, "hooks", "lint").returncode == 0
    assert vdsm(fresh_host, "hooks", "trace").returncode == 0


def test_an_ordinary_user_is_told_what_it_may_not_do(agent_host):
    def as_nobody(*words):
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = agent_host.run([*nobody, PYTHON, "-m", "vdsm.cli", *words], check=False)
        assert "Traceback" not in done.stderr.decode()
        return done

    events = as_nobody("events", "--for", "1")
    assert (events.returncode, b"Access denied" in events.stderr) == (1, True)
    trace = as_nobody("hooks", "trace")
    assert trace.returncode in (0, 1)
    seen = {r["what"]: r for r in json.loads(as_nobody("doctor", "--json").stdout)}
    for what in ("libvirt", "sanlock", "root helper", "agent"):
        assert seen[what]["level"] == "warning" and "root" in seen[what]["remedy"], seen[what]


def test_a_connection_that_failed_is_an_error_with_its_reason(agent_host):
    words = ["storagepoolID=00000000-0000-0000-0000-000000000000", "domainType=4", "connectionParams.0.id=c1"]
    done = vdsm(agent_host, "call", "StoragePool.connectStorageServer", *words, "connectionParams.0.connection=/srv/no")
    assert done.returncode == 1
    assert "/srv/no" in done.stderr.decode() and "(code 453)" in done.stderr.decode()
