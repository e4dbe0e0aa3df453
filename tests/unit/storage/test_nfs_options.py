# SPDX-License-Identifier: GPL-2.0-or-later
"""With which options an export is mounted, and which of a user's are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.servers import nfs_options
from storage.servers.errors import OptionRefused
from storage.servers.kinds import NfsExport, NfsVersion, PosixMount

IO_TIMEOUT_S = 10


def export(version: str = "3", options: str = "", timeo: int | None = None, retrans: int | None = None) -> str:
    wanted = NfsExport("c", "srv:/x", NfsVersion(version), timeo, retrans, options)
    return nfs_options.of_export(wanted, IO_TIMEOUT_S)


def posix(options: str, vfs_type: str = "nfs") -> str:
    return nfs_options.of_posix_mount(PosixMount("c", "srv:/x", vfs_type, options), IO_TIMEOUT_S)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3", "soft,nosharecache,timeo=100,retrans=3,nfsvers=3,nolock"),
        ("4", "soft,nosharecache,timeo=100,retrans=3,nfsvers=4"),
        ("4.0", "soft,nosharecache,timeo=100,retrans=3,nfsvers=4,minorversion=0"),
        ("4.1", "soft,nosharecache,timeo=100,retrans=3,nfsvers=4,minorversion=1"),
        ("4.2", "soft,nosharecache,timeo=100,retrans=3,nfsvers=4,minorversion=2"),
        ("auto", "soft,nosharecache,timeo=100,retrans=3,nolock"),
    ],
)
def test_each_version_has_the_fields_options(version: str, expected: str) -> None:
    assert export(version) == expected


def test_the_users_options_come_after_the_fields() -> None:
    assert export("4.2", "sec=krb5p,,nconnect=4", timeo=150, retrans=2) == (
        "soft,nosharecache,timeo=150,retrans=2,nfsvers=4,minorversion=2,sec=krb5p,nconnect=4"
    )


@pytest.mark.parametrize("version", ["3", "auto"])
@pytest.mark.parametrize("option", ["lock", "nolock"])
def test_who_says_how_to_lock_is_left_alone(version: str, option: str) -> None:
    assert export(version, option).endswith(f",{option}")
    assert export(version, option).count("lock") == 1


@pytest.mark.parametrize("option", [*nfs_options.REFUSED, "proto=udp", "proto=udp6", "hard=1"])
def test_an_unsafe_option_is_refused_by_its_name_with_the_reason(option: str) -> None:
    name = option.partition("=")[0]
    for refuse in (export, posix):
        with pytest.raises(OptionRefused, match=f"'{name}' is not taken: .{{10}}"):
            refuse(options=option)


@pytest.mark.parametrize(
    "option",
    [
        *("timeo=99", "timeo=-1", "timeo=x", "timeo=", "timeo", "timeo=100000", "timeo=١٠٠", "retrans=0", "retrans=31"),
        *("rsize=512", "wsize=1", "acregmax=61", "actimeo=3600", "port=65536", "nconnect=0", "sec=krb6", "sec"),
        *(
            "local_lock=some",
            "lookupcache=old",
            "xprtsec=maybe",
            "soft=1",
            "context=",
            "SOFT",
            "unknown",
            "a b",
            "=",
            "é",
        ),
    ],
)
def test_a_value_that_is_none_or_unsafe_is_refused(option: str) -> None:
    with pytest.raises(OptionRefused):
        export(options=option)
    with pytest.raises(OptionRefused):
        posix(f"soft,{option}")


def test_a_refusal_does_not_tell_the_value() -> None:
    with pytest.raises(OptionRefused) as e:
        export(options="password=geheim")
    assert "geheim" not in str(e.value)


@pytest.mark.parametrize("options", ["timeo=200,retrans=8", "timeo=6000,retrans=3", "retrans=11"])
def test_a_server_that_is_gone_is_told_in_bounded_time(options: str) -> None:
    with pytest.raises(OptionRefused, match="at most 600"):
        export(options=options)


def test_times_of_both_forms_are_checked_together() -> None:
    with pytest.raises(OptionRefused, match="at least 100"):
        export(timeo=50)
    with pytest.raises(OptionRefused, match="at least 100"):
        export(timeo=200, options="timeo=50")
    assert "timeo=50,retrans=3,nfsvers=3,timeo=100" in export(timeo=50, options="timeo=100")


def test_the_least_time_is_the_hosts_own_lock_timeout() -> None:
    wanted = NfsExport("c", "srv:/x", timeo_ds=20)
    assert "timeo=20" in nfs_options.of_export(wanted, io_timeout_s=2)
    with pytest.raises(OptionRefused, match="at least 30"):
        nfs_options.of_export(wanted, io_timeout_s=3)


@pytest.mark.parametrize("option", ["vers=4", "nfsvers=4.1", "minorversion=1", "v4", "v4.2", "v3"])
def test_the_version_of_an_export_is_no_option(option: str) -> None:
    with pytest.raises(OptionRefused, match="protocol_version"):
        export(options=option)


@pytest.mark.parametrize(
    ("options", "vfs_type", "expected"),
    [
        ("", "nfs", "soft,nosharecache,timeo=100,retrans=3,nolock"),
        ("vers=3", "nfs", "soft,nosharecache,timeo=100,retrans=3,vers=3,nolock"),
        ("vers=4.2", "nfs", "soft,nosharecache,timeo=100,retrans=3,vers=4.2"),
        ("nfsvers=4,minorversion=1", "nfs", "soft,nosharecache,timeo=100,retrans=3,nfsvers=4,minorversion=1"),
        ("v4.1", "nfs", "soft,nosharecache,timeo=100,retrans=3,v4.1"),
        ("rw", "nfs4", "soft,nosharecache,timeo=100,retrans=3,rw"),
        ("timeo=600,soft", "nfs4", "soft,nosharecache,timeo=100,retrans=3,timeo=600,soft"),
    ],
)
def test_a_posix_mount_of_nfs_is_as_safe(options: str, vfs_type: str, expected: str) -> None:
    assert posix(options, vfs_type) == expected


@pytest.mark.parametrize("option", ["vers=2", "vers=5", "vers=4.3", "nfsvers=x", "minorversion=3", "vers"])
def test_a_version_that_there_is_not_is_refused(option: str) -> None:
    with pytest.raises(OptionRefused, match="a version of NFS"):
        posix(option)


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        (export("3"), (2049, 111)),
        (export("auto"), (2049, 111)),
        (export("4.1"), (2049,)),
        (posix("vers=4"), (2049,)),
        (export("4", "port=20490"), (20490,)),
        (export("4", "port=0"), (2049,)),
        (export("4", "rdma"), ()),
        (export("4", "proto=rdma6"), ()),
    ],
    ids=range(8),
)
def test_ports_that_a_living_server_answers_at(options: str, ports: tuple[int, ...]) -> None:
    assert nfs_options.ports(options) == ports


def test_every_refused_option_has_its_reason_in_the_manual() -> None:
    page = (Path(__file__).parents[3] / "docs" / "storage.md").read_text()
    missing = [name for name in nfs_options.REFUSED if f"`{name}`" not in page]
    assert missing == []
