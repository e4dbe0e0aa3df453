# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage connections`: what is connected, by whom wanted and used, and why one is not."""

import json
import os

import pytest
from typer.testing import CliRunner

from storage.in_use import InUse
from storage.servers.kinds import LocalFolder, NfsExport
from storage.servers.records import ConnectionRecords
from vdsm.cli.app import app
from vdsm.cli.storage import commands as app_module
from vdsm.common.ids import new_uuid
from vdsm.common.paths import Paths

POOL, DOMAIN, IMAGE = new_uuid(), new_uuid(), new_uuid()


@pytest.fixture
def paths(tmp_path, monkeypatch):
    paths = Paths(repository=str(tmp_path / "rhev"), run=str(tmp_path / "run"))
    os.makedirs(paths.mounts)
    monkeypatch.setattr(app_module, "Paths", lambda: paths)
    return paths


def listed():
    done = CliRunner().invoke(app, ["storage", "connections", "--json"])
    assert done.exit_code == 0, done.output
    return {one.pop("folder"): one for one in json.loads(done.output)}


def test_nothing_is_connected(paths):
    assert "No storage is connected" in CliRunner().invoke(app, ["storage", "connections"]).output
    assert listed() == {}


def test_what_is_connected_names_who_wants_and_who_uses_it(paths):
    mount = f"{paths.mounts}/_srv_data"
    os.symlink("/srv/data", mount)  # so a local folder is connected
    for connection_id in ("b", "a"):
        ConnectionRecords(paths.connections).connected(LocalFolder(connection_id, "/srv/data"), "")
    os.makedirs(f"{paths.repository}/{POOL}")
    os.symlink(f"{mount}/{DOMAIN}", f"{paths.repository}/{POOL}/{DOMAIN}")
    os.symlink(f"{mount}2/{DOMAIN}", f"{paths.repository}/{POOL}/{IMAGE}")
    os.makedirs(f"{paths.storage_run}/{DOMAIN}")
    os.symlink(f"{mount}/{DOMAIN}/images/{IMAGE}", f"{paths.storage_run}/{DOMAIN}/{IMAGE}")
    InUse(f"{paths.run}/prepared").add(DOMAIN, IMAGE, "vm:1", [])
    assert listed() == {
        "_srv_data": {
            "kind": "LOCALFS",
            "connection": "/srv/data",
            "state": "connected",
            "reason": "",
            "wanted_by": ["a", "b"],
            "used_by": [f"domain {DOMAIN}", "vm:1"],
        }
    }


def test_one_that_failed_and_one_that_is_lost_say_why(paths):
    records = ConnectionRecords(paths.connections)
    records.connected(NfsExport("1", "srv:/failed"), "access denied by server [/]")
    records.connected(NfsExport("2", "srv:/lost"), "")
    found = listed()
    assert (found["srv:_failed"]["state"], found["srv:_failed"]["reason"]) == ("failed", "access denied by server [/]")
    assert (found["srv:_lost"]["state"], found["srv:_lost"]["reason"][:16]) == ("lost", "it was connected")
    shown = CliRunner().invoke(app, ["storage", "connections"], env={"COLUMNS": "200"}).output
    assert "access denied by server [/]" in shown


def test_what_nobody_on_record_connected_is_shown_by_its_folder(paths):
    os.symlink("/srv/x", f"{paths.mounts}/_srv_x")
    assert listed()["_srv_x"]["state"] == "unknown here"


def test_it_looks_at_this_host_only(paths):
    assert CliRunner().invoke(app, ["--host", "other", "storage", "connections"]).exit_code == 2
