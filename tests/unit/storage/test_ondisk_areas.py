# SPDX-License-Identifier: GPL-2.0-or-later
"""Mailbox, leases, external leases, tags, offsets: fixed vectors, round trips, refusals."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import BlockSizeUnsupported, ChecksumMismatch, InvalidContent, StorageError, UnsupportedAlignment
from storage.ondisk import layout, lease_parameters, mailbox, sanlock_area, tags, xleases
from storage.ondisk.crc32c import checksum
from storage.ondisk.mailbox import ExtendMessage
from storage.ondisk.remote_path import mount_name, normalise
from storage.ondisk.values import DomainKind
from vdsm.common.units import MiB

uuids = st.uuids().map(str)

MESSAGE = ExtendMessage("8adbc85e-e554-4ae0-b318-8a5465fe5fe1", "d772f1c6-3ebb-43c3-a42e-73fcd8255a5f", 1024)
MESSAGE_HEX = (
    "3178746e64e15ffe65548a18b3e04a54e55ec8db8a5f5a25d8fc732ea4c343bb3ec6f172d7"
    "30303030303030303030303030343030"
    "3030303030303030303030"
)


def test_mailbox_message_vector():
    assert mailbox.encode_message(MESSAGE).hex() == MESSAGE_HEX
    assert mailbox.decode_message(bytes.fromhex(MESSAGE_HEX), "x") == MESSAGE


def test_mailbox_checksum_vectors():
    assert mailbox.encode_mailbox({0: mailbox.encode_message(MESSAGE)})[-4:].hex() == "33190000"
    assert mailbox.encode_mailbox({0: mailbox.CLEAN})[-4:] == struct.pack("<i", 64)


def test_packed_uuid_vector():
    text = "00010203-0405-4607-8001-020304050607"
    assert mailbox.pack_uuid(text).hex() == "07060504030201800746050403020100"
    assert mailbox.encode_event(text).hex() == "0065767400010203040546078001020304050607"
    assert mailbox.decode_event(mailbox.encode_event(text) + b"\0" * 44) == text
    assert mailbox.decode_event(b"\0" * 64) is None


@given(uuids, uuids, st.integers(0, (1 << 64) - 1))
def test_mailbox_message_comes_back(domain_id, volume_id, size_mib):
    message = ExtendMessage(domain_id, volume_id, size_mib)
    assert mailbox.decode_message(mailbox.encode_message(message), "x") == message


@given(st.dictionaries(st.integers(0, 62), st.sampled_from([mailbox.CLEAN, mailbox.encode_message(MESSAGE)])))
def test_mailbox_comes_back(slots):
    decoded = mailbox.decode_mailbox(mailbox.encode_mailbox(slots), "x")
    assert decoded == [slots.get(i, mailbox.EMPTY) for i in range(63)]


def test_empty_slots_hold_no_message():
    assert mailbox.decode_message(mailbox.EMPTY, "x") is None
    assert mailbox.decode_message(mailbox.CLEAN, "x") is None


def test_torn_mailbox_is_refused():
    data = bytearray(mailbox.encode_mailbox({0: mailbox.encode_message(MESSAGE)}))
    data[70] = 7
    with pytest.raises(InvalidContent, match=r"inbox.*33190000"):
        mailbox.decode_mailbox(bytes(data), "inbox")


@given(st.binary(min_size=64, max_size=64))
def test_any_slot_gives_a_message_or_a_storage_error(data):
    with contextlib.suppress(StorageError):
        mailbox.decode_message(data, "x")


def test_offset_vectors():
    assert layout.metadata_slot_offset(4, 4) == 2048
    assert layout.block_lease_offset(4, MiB) == 109051904
    assert layout.metadata_slot_offset(1, 5) == 1056768
    assert layout.block_lease_offset(1, MiB) == 105906176
    assert layout.metadata_slot_offset(100, 5) == 1867776
    assert layout.block_lease_offset(100, MiB) == 209715200
    assert layout.block_lease_offset(1947, MiB) == 2146435072
    assert layout.xlease_offset(0, MiB) == 3145728
    assert layout.sdm_offset(MiB) == MiB


@pytest.mark.parametrize(
    ("block_size", "hosts", "size_mib"),
    [(512, 2000, 1), (4096, 250, 1), (4096, 251, 2), (4096, 1000, 4), (4096, 2000, 8)],
)
def test_alignment(block_size, hosts, size_mib):
    assert layout.alignment(block_size, hosts) == size_mib * MiB


@pytest.mark.parametrize(("block_size", "hosts"), [(512, 2001), (4096, 2001), (1024, 1), (512, 0)])
def test_alignment_that_does_not_exist(block_size, hosts):
    with pytest.raises(UnsupportedAlignment):
        layout.alignment(block_size, hosts)


def test_block_size_choice():
    assert layout.choose_block_size("/x", 0, 1) == 512
    assert layout.choose_block_size("/x", 0, 4096) == 4096
    assert layout.choose_block_size("/x", 512, 1) == 512
    with pytest.raises(BlockSizeUnsupported, match="4096"):
        layout.choose_block_size("/x", 512, 4096)


def test_tag_vector():
    assert tags.metadata_tags({"DESCRIPTION": "a,b c&d"}) == {"MDT_DESCRIPTION=a&44&b&32&c&38&d"}


@given(st.dictionaries(st.from_regex(r"[A-Z]{1,9}", fullmatch=True), st.text(max_size=40), max_size=8))
def test_tags_come_back(fields):
    made = tags.metadata_tags(fields)
    assert tags.metadata_fields([*made, "MD_3", "RHAT_storage_domain"], "vg") == fields
    assert all(ord(c) < 128 and c != "," and c != " " for tag in made for c in tag)


@pytest.mark.parametrize(
    "tag", ["MDT_A=&44", "MDT_A=&9999999&", "MDT_A", "MDT_=x", "MDT_A=b c", "MDT_" + "A=" + "x" * 2000]
)
def test_bad_tags_are_refused(tag):
    with pytest.raises(InvalidContent, match="vg"):
        tags.metadata_fields([tag], "vg")


# The field's own folder names; the last group is where a root or a list of hosts must keep its slash.
MOUNT_NAMES = [
    ("srv:/export/my_dir", "srv:_export_my__dir"),
    ("srv://export//a/", "srv:_export_a"),
    ("srv:///path", "srv:_path"),
    ("srv:/pa:th", "srv:_pa:th"),
    ("srv:/a/../b/./c", "srv:_b_c"),
    ("srv:/../..", "srv:_"),
    ("srv:6789:/path/", "srv:6789:_path"),
    ("srv:01234:/", "srv:01234:"),
    ("srv:99999:/", "srv:99999:"),
    ("[2001:db8::60fe]:/a//b", "[2001:db8::60fe]:_a_b"),
    ("/dev/vg/lv_1", "_dev_vg_lv__1"),
    ("//path//to///it/", "_path_to_it"),
    ("/a/../../b", "_b"),
    ("path//to///it/", "path_to_it"),
    ("proc", "proc"),
    ("srv:/", "srv:_"),
    ("srv:///", "srv:_"),
    ("12.34.56.78:/", "12.34.56.78:_"),
    ("[2001:db8::60fe]:/", "[2001:db8::60fe]:_"),
    ("srv:6789:/", "srv:6789:_"),
    ("mon1:6789,mon2:6789:/", "mon1:6789,mon2:6789:_"),
    ("mon1,mon2:/", "mon1,mon2:_"),
    ("mon1:6789,mon2:6789:/a/../b/", "mon1:6789,mon2:6789:_b"),
]


@pytest.mark.parametrize(("spec", "name"), MOUNT_NAMES)
def test_mount_name(spec, name):
    assert mount_name(spec) == name


@given(st.text(st.sampled_from("ab_/:.-,1[]"), min_size=1, max_size=30))
def test_a_normalised_spec_stays_as_it_is_and_its_folder_is_one_name(spec):
    assert normalise(normalise(spec)) == normalise(spec)
    assert "/" not in mount_name(spec)


# External leases


def test_xleases_index_size_and_places():
    index = xleases.empty_index("275766cb-c7d8-43d6-a663-4e52160de620", 1700000000, updating=False)
    assert len(index) == 253952 == xleases.INDEX_SIZE
    assert xleases.MAX_RECORDS == 3960
    assert xleases.record_offset(0) == 512
    assert index[:10] == bytes.fromhex("12152016") + b"\0" + b"0001" + b"\0"
    assert index[10:58].rstrip(b"\0").decode() == "275766cb-c7d8-43d6-a663-4e52160de620"
    assert index[59:71] == b"1700000000\0-"
    assert index[511:512] == b"\n"
    assert index[512:576] == b"\0" * 49 + b"00000000000" + b"\0--\n"


@given(uuids, st.integers(0, 3959), st.booleans())
def test_xlease_record_comes_back(lease_id, number, updating):
    record = xleases.Record(lease_id, layout.xlease_offset(number, MiB), updating)
    assert xleases.decode_record(xleases.encode_record(record), "x") == record


def test_a_new_external_lease_has_the_slot_of_its_record():
    lease_id = "275766cb-c7d8-43d6-a663-4e52160de620"
    record = xleases.encode_record(xleases.record_at(2, lease_id, MiB))
    assert record == lease_id.encode().ljust(48, b"\0") + b"\0" + b"%011d" % (5 * MiB) + b"\0--\n"


@given(uuids, st.integers(0, 9999999999), st.booleans())
def test_xleases_metadata_comes_back(lockspace, mtime, updating):
    metadata = xleases.IndexMetadata(lockspace, mtime, updating)
    assert xleases.decode_metadata(xleases.encode_metadata(metadata), "x") == metadata


@given(st.binary(min_size=64, max_size=64))
def test_any_record_gives_a_record_or_a_storage_error(data):
    with contextlib.suppress(StorageError):
        xleases.decode_record(data, "x")


def test_foreign_index_is_refused():
    with pytest.raises(InvalidContent, match="magic"):
        xleases.decode_metadata(b"\0" * 512, "xleases")


# sanlock's records


def leader(**changes):
    values = {"magic": 0x06152010, "version": 0x00060004, "flags": 0x10, "timestamp": 0, **changes}
    head = struct.pack(
        "<IIIIQQQQQ48s48sQQ",
        values["magic"],
        values["version"],
        values["flags"],
        512,
        250,
        2000,
        3,
        7,
        9,
        b"space",
        b"SDM",
        values["timestamp"],
        0,
    )
    return head + struct.pack("<IHHQQQ", checksum(head), 0, 10, 0, 0, 0) + bytes(512 - 200)


def test_crc32c_of_the_standard_text():
    # the standard check value of CRC-32C over "123456789" with the usual initial value is E3069283
    def standard(data):
        value = 0xFFFFFFFF
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        return value ^ 0xFFFFFFFF

    assert standard(b"123456789") == 0xE3069283
    # ours differs in the initial value only: linear, so the difference is that of the initial values
    zero = bytes(9)
    assert checksum(b"123456789") ^ checksum(zero) == standard(b"123456789") ^ standard(zero)
    assert checksum(b"") == 0xFFFFFFFE


def test_leader_record():
    found = sanlock_area.decode_leader(leader(), "leases")
    assert (found.space, found.resource, found.lver) == ("space", "SDM", 9)
    assert (found.owner_id, found.owner_generation, found.alignment, found.io_timeout) == (3, 7, MiB, 10)
    assert found.free
    assert not sanlock_area.decode_leader(leader(timestamp=5), "x").free


def test_every_flipped_byte_of_a_leader_is_refused():
    data = leader()
    for place in range(172):
        flipped = data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]
        with pytest.raises((ChecksumMismatch, InvalidContent), match="leases"):
            sanlock_area.decode_leader(flipped, "leases")


@given(st.binary(max_size=512))
def test_any_bytes_as_leader_give_a_storage_error(data):
    with pytest.raises(StorageError):
        sanlock_area.decode_leader(data, "x")


def test_host_block():
    head = struct.pack("<QQQQQQ", 251, 251, 1, 4, 99, 12)
    block = (head + struct.pack("<II", checksum(head), 1)).ljust(128, b"\0") + struct.pack("<IQ", 1, 4)
    found = sanlock_area.decode_host_block(block.ljust(512, b"\0"), "x")
    assert found is not None
    assert (found.host_id, found.generation, found.lver, found.released, found.shared) == (1, 4, 12, True, True)
    assert sanlock_area.decode_host_block(bytes(512), "x") is None


def test_event_bitmap():
    data = bytearray(512)
    data[256] = 0b101
    data[257] = 0b1
    assert sanlock_area.events(bytes(data)) == {1, 3, 9}


def request(magic=0x08292011, version=0x00010001, lver=0, force_mode=0):
    return struct.pack("<IIQI", magic, version, lver, force_mode).ljust(512, b"\0")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (bytes(512), None),  # nobody ever asked
        (request(), None),  # who asked has taken it back
        (request(lver=9, force_mode=1), (9, 1)),
        (request(lver=9), (9, 0)),
        (request(force_mode=2), (0, 2)),
        (request(version=0x00010000, lver=1), (1, 0)),
        (request(version=0x0001FFFF, lver=1), (1, 0)),
        (request(lver=9)[:20], (9, 0)),
    ],
)
def test_who_asked_for_a_lease_stands_in_its_request(data, found):
    request = sanlock_area.decode_request(data, "x")
    assert (request and (request.lver, request.force_mode)) == found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (request(magic=1), "its magic is 0x00000001, its version 0x00010001"),
        (request(version=0x00020000), "its magic is 0x08292011, its version 0x00020000"),
        (request(version=1), "its magic is 0x08292011, its version 0x00000001"),
        (bytes(19), "19 bytes are no request record"),
    ],
)
def test_what_is_no_request_is_refused(data, said):
    with pytest.raises(InvalidContent, match=said) as refused:
        sanlock_area.decode_request(data, "leases")
    assert "leases" in str(refused.value)


# Words and numbers


def test_each_storage_type_has_its_number_on_the_wire():
    assert {kind.name: kind.number for kind in DomainKind} == {
        "NFS": 1,
        "FCP": 2,
        "ISCSI": 3,
        "LOCALFS": 4,
        "POSIXFS": 6,
        "GLUSTERFS": 7,
    }
    assert all(DomainKind.from_number(kind.number) is kind for kind in DomainKind)
    with pytest.raises(ValueError, match="5 is no storage type"):
        DomainKind.from_number(5)


def test_a_master_has_the_locks_timing_that_its_engine_gave_or_the_defaults():
    given = {
        "LOCKRENEWALINTERVALSEC": "7",
        "LEASETIMESEC": "70",
        "IOOPTIMEOUTSEC": "17",
        "LEASERETRIES": "4",
    }
    assert lease_parameters.fields(7, 70, 17, 4) == given
    defaults = {
        "LOCKPOLICY": "ON",
        "LOCKRENEWALINTERVALSEC": "5",
        "LEASETIMESEC": "60",
        "IOOPTIMEOUTSEC": "10",
        "LEASERETRIES": "3",
    }
    for missing in ((None, 70, 17, 4), (7, 0, 17, 4), (7, 70, None, 4), (7, 70, 17, 0)):
        assert lease_parameters.fields(*missing) == defaults
    lease_parameters.fields(None, None, None, None)["LEASETIMESEC"] = "1"
    assert lease_parameters.fields(None, None, None, None) == defaults
