# SPDX-License-Identifier: GPL-2.0-or-later
"""What calls are about, and which verbs keep their order: the data, held against the verbs."""

import pytest

from vdsm.api import lines, params, registry
from vdsm.api.contract import fields, rows
from vdsm.api.params import Unknown

VERBS = registry.load()
ID = "6a3b1f0e-0000-4000-8000-000000000001"
OTHER = "6a3b1f0e-0000-4000-8000-000000000002"
BLANK = "00000000-0000-0000-0000-000000000000"


def given(name, **values):
    return params.convert(name, VERBS[name].params, values, Unknown.REFUSE)


@pytest.mark.parametrize("line", lines.LINES, ids=lambda line: f"{line.name} of {line.of}")
def test_verbs_of_a_line_exist_change_something_and_say_what_they_are_about(line):
    for name in line.verbs.split():
        assert VERBS[name].changes, name
        assert VERBS[name].line is not None, name


def test_a_verb_is_in_one_line():
    named = [name for line in lines.LINES for name in line.verbs.split()]
    assert len(named) == len(set(named))


def test_what_overtakes_is_vital_and_changes_something():
    for name in lines.OVERTAKING:
        assert VERBS[name].vital
        assert VERBS[name].changes


def test_a_verb_with_one_of_the_names_is_about_what_it_names():
    for name, row in rows().items():
        if lines.SUBJECTS.keys() & fields(row.params).keys():
            assert VERBS[name].subject is not None, name


@pytest.mark.parametrize(
    ("name", "values", "subject"),
    [
        ("VM.cont", {"vmID": ID}, "VM"),
        ("VM.freeze", {"vmID": ID}, "VM"),
        ("StorageDomain.getInfo", {"storagedomainID": ID}, "domain"),
        ("StorageDomain.activate", {"storagedomainID": ID, "storagepoolID": OTHER}, "domain"),
        (
            "Volume.getSize",
            {"volumeID": OTHER, "storagepoolID": OTHER, "storagedomainID": ID, "imageID": OTHER},
            "domain",
        ),
        ("Host.stopMonitoringDomain", {"sdUUID": ID}, "domain"),
        ("Lease.info", {"lease": {"sd_id": ID, "lease_id": OTHER}}, "domain"),
        ("StoragePool.getInfo", {"storagepoolID": ID}, "pool"),
        ("Task.stop", {"taskID": ID}, "task"),
    ],
)
def test_a_call_is_about_what_it_hangs_on_when_it_hangs(name, values, subject):
    assert VERBS[name].subject(given(name, **values)) == (f"{subject} {ID}",)


def test_a_call_that_names_nothing_is_about_nothing():
    assert VERBS["Host.getStats"].subject is None
    assert VERBS["Host.getStorageDomains"].subject(given("Host.getStorageDomains", storagepoolID=BLANK)) == ()
    assert VERBS["ManagedVolume.detach_volume"].subject(given("ManagedVolume.detach_volume", vol_id=ID)) == ()


def servers(*where):
    connections = [{"id": ID, "connection": one, "port": "3260"} for one in where]
    return given("StoragePool.connectStorageServer", storagepoolID=BLANK, domainType=1, connectionParams=connections)


def test_storage_servers_are_things_of_their_own():
    verb = VERBS["StoragePool.connectStorageServer"]
    assert verb.subject(servers("nfs1:/a", "nfs2:/b", "nfs1:/a")) == ("server nfs1:/a", "server nfs2:/b")
    assert verb.line(servers("nfs1:/a")) == ("line connection of server nfs1:/a",)


def test_connect_and_disconnect_of_one_server_stand_in_one_line():
    disconnect = VERBS["StoragePool.disconnectStorageServer"].line(servers("nfs1:/a"))
    assert disconnect == VERBS["StoragePool.connectStorageServer"].line(servers("nfs1:/a"))


@pytest.mark.parametrize(("name", "behind"), [("VM.freeze", "VM.thaw"), ("VM.start_backup", "VM.stop_backup")])
def test_what_undoes_something_is_waited_for_by_the_next_one(name, behind):
    assert VERBS[behind].overtakes
    asked = {"vmID": ID} | ({"config": {}} if "backup" in name else {})
    undone = {"vmID": ID} | ({"backup_id": OTHER} if "backup" in name else {})
    assert VERBS[name].line(given(name, **asked)) == VERBS[behind].line(given(behind, **undone))


def test_lines_of_one_thing_differ():
    assert VERBS["VM.pause"].line(given("VM.pause", vmID=ID)) == VERBS["VM.cont"].line(given("VM.cont", vmID=ID))
    assert VERBS["VM.pause"].line(given("VM.pause", vmID=ID)) != VERBS["VM.freeze"].line(given("VM.freeze", vmID=ID))
    assert VERBS["VM.pause"].line(given("VM.pause", vmID=ID)) != VERBS["VM.cont"].line(given("VM.cont", vmID=OTHER))


def test_a_line_of_the_host_is_one_for_all_calls():
    assert VERBS["Host.unregisterSecrets"].line(given("Host.unregisterSecrets", uuids=[ID])) == (
        "line secrets of the host",
    )


@pytest.mark.parametrize("name", ["VM.destroy", "VM.migrateCancel", "Task.stop", "Task.revert", "VM.getStats"])
def test_what_ends_something_and_what_only_reads_is_in_no_line(name):
    assert VERBS[name].line is None
