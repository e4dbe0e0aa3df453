# SPDX-License-Identifier: GPL-2.0-or-later
"""Codes: the field's table is whole, ours are in it, and what an engine acts on is what it means."""

import importlib
import pathlib
import pkgutil

import pytest

import network
import storage
import vdsm
from network import errors as net
from storage import errors as store
from storage.spm import errors as pool
from storage.tasks import runner
from vdsm.api import codes, default_codes, errors_page, registry
from vdsm.api.errors import NotBuilt, RecoveryInProgress, SubjectHangs, TooManyCalls, VmHangs, to_wire
from vdsm.common.errors import _CLASSES, AgentError, CommandFailed, DeadlineExceeded, InvalidParameter
from vdsm.common.jobs import NoSuchJob
from vdsm.virt import errors as virt

VERBS = registry.load()
PROTOCOL = {-32602, -32601, -32001}
# classes that say how something failed and not what: the verb's default is their code
BY_VERB = {
    "network.kernel:StepFailed",
    "vdsm.common.errors:CommandFailed",
    "vdsm.common.errors:CommandHangs",
    "vdsm.common.errors:CommandNotFound",
    "vdsm.common.errors:DeadlineExceeded",
    "vdsm.common.errors:OutputTooLong",
    "vdsm.common.errors:RemoteError",
    "vdsm.common.hanging:PlaceHangs",
    "vdsm.common.link:LinkClosed",
    "vdsm.root.client:RootHelperUnreachable",
    "vdsm.virt.errors:NotBegun",
    "vdsm.virt.errors:Unanswered",
}
# classes that end a start or a command line, or that their only caller turns into another
NEVER_ON_THE_WIRE = {
    "vdsm.common.single:AlreadyRuns",
    "vdsm.common.xml:InvalidXml",
    "vdsm.config:BadConfiguration",
    "vdsm.hooking.dry_run:NothingInstalled",
    "vdsm.hooking.points:UnknownPoint",
    "vdsm.virt.launch_flags:BadLaunchFlags",
}
BELOW_THE_BORDER = (
    "storage",
    "network",
    "vdsm.api",
    "vdsm.common",
    "vdsm.config",
    "vdsm.hooking",
    "vdsm.host",
    "vdsm.root.client",
    "vdsm.virt",
)


def test_table_has_every_code_of_the_field():
    table = codes.table()
    assert len(table) == 437
    assert all(0 < code < 5000 for code in table)
    assert all(known.name or known.engine_name for known in table.values())
    assert not any(4101 <= code < 4900 for code in table), "gluster"


@pytest.mark.parametrize(
    ("code", "name", "engine_name", "reaction"),
    [
        (1, "NoSuchVM", "noVM", "F"),
        (39, None, "MIGRATION_DEST_INVALID_HOSTNAME", "K"),
        (44, "MethodNotImplemented", "NO_IMPLEMENTATION", "K"),
        (99, "RecoveryInProgress", "recovery", "R"),
        (324, "StoragePoolWrongMaster", "StoragePoolWrongMaster", "M"),
        (654, "SpmStatusError", "SpmStatusError", "S"),
        (911, "GenerationMismatch", None, "F"),
        (1100, "ResourceExhausted", "ResourceExhausted", "N"),
        (4900, "UnicodeArgumentException", "UnicodeArgumentException", "U"),
    ],
)
def test_code_means_what_the_field_means(code, name, engine_name, reaction):
    assert codes.table()[code] == codes.Known(name, engine_name, reaction)
    assert codes.numbers()[name or engine_name] == code
    assert codes.name_of(code) == (name or engine_name)


def test_every_code_of_ours_is_known_to_the_field():
    assert {code for code in codes.all_codes().values() if code not in codes.table()} <= PROTOCOL


def test_default_of_a_verb_is_known_and_never_taken_for_success():
    taken_for_success = {"Image": {256, 268}, "Task": {401, 410}, "StoragePool": {309, 654, 702}, "VM": {1, 4, 13, 52}}
    for name in VERBS:
        for code in (default_codes.of_error(name), default_codes.of_defect(name)):
            assert code == -32603 or code in codes.table(), name
            assert code not in taken_for_success.get(name.partition(".")[0], ()), name


@pytest.mark.parametrize(
    ("verb", "error", "defect"),
    [
        ("VM.create", 100, 100),
        ("ManagedVolume.attach_volume", 100, 100),
        ("Host.getStats", 100, -32603),
        ("Host.getDeviceList", 600, 600),
        ("StoragePool.spmStart", 650, 650),
        ("StoragePool.getInfo", 300, 300),
        ("Image.delete", 250, 250),
        ("Task.clear", 402, 402),
        ("rpc.discover", 100, -32603),
    ],
)
def test_failure_without_a_code_has_the_verbs(verb, error, defect):
    assert to_wire(CommandFailed("lvs", 5, "no"), verb).code == error
    wire = to_wire(ValueError("the key is swordfish"), verb)
    assert wire.code == defect
    assert "swordfish" not in str(wire)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        # destroy of a VM that is gone is done; create of one that is there is not tried elsewhere
        (virt.NoSuchVm("x"), 1),
        (virt.VmExists("x", "Up"), 4),
        # delete of an image that is gone is done
        (store.ImageNotFound("d", "i"), 268),
        # connect of a pool
        (store.HostIdNotAcquired, 661),
        (pool.MasterNotFound, 304),
        (pool.AnotherPoolConnected, 323),
        (pool.WrongMaster, 324),
        # SPM
        (pool.PoolUnknown, 309),
        (pool.NotSpm, 654),
        # tasks
        (runner.UnknownTask, 401),
        (runner.TaskNotStoppable, 410),
        (runner.TaskNotFinished, 410),
        # domains, leases, jobs, networks
        (store.DomainNotFound, 358),
        (store.StorageError, 200),
        (store.NoSuchLease, 936),
        (NoSuchJob, 66),
        (net.ConnectivityLost, 10),
        # the agent
        (RecoveryInProgress, 99),
        (virt.Recovering, 99),
        (TooManyCalls, 1100),
        (VmHangs, 40),
        (NotBuilt, 44),
    ],
)
def test_engine_acts_on_what_happened(error, code):
    assert codes.code_of(error if isinstance(error, type) else type(error)) == code


@pytest.mark.parametrize(
    "error", [NotBuilt, SubjectHangs, InvalidParameter, runner.TaskNotFinished, store.VolumeExists, store.NoSpaceLeft]
)
def test_what_a_caller_can_put_right_moves_no_spm(error):
    assert codes.table()[codes.code_of(error)].reaction == "K"


@pytest.mark.parametrize("error", [VmHangs, SubjectHangs])
def test_one_thing_that_hangs_is_no_trouble_of_the_network(error):
    assert codes.table()[codes.code_of(error)].reaction in ("F", "K")


def test_timeout_of_a_storage_verb_is_a_storage_error():
    assert to_wire(DeadlineExceeded("lvs", 5), "StorageDomain.getInfo").code == 350


def test_every_error_below_the_border_has_a_code_or_a_reason_for_none():
    for package in (vdsm, storage, network):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            runs_elsewhere = "scriptlib" in module.name or module.name.endswith("__main__")
            if module.name.startswith(BELOW_THE_BORDER) and not runs_elsewhere:
                importlib.import_module(module.name)
    bare = {
        kind
        for kind, cls in _CLASSES.items()
        if kind.startswith(BELOW_THE_BORDER)
        and cls is not AgentError
        and codes.own_code(cls) is None
        and "<locals>" not in kind
        and not kind.startswith("vdsm.common.stomp:")  # a bad frame ends its connection, no call
    }
    assert bare == BY_VERB | NEVER_ON_THE_WIRE


def test_page_that_is_checked_in_equals_the_code():
    path = pathlib.Path(__file__).parents[3] / "docs" / "api" / "errors.md"
    assert path.read_text() == errors_page.page(), "run: make openrpc"
