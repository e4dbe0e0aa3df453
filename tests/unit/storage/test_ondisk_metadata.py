# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata of domains and volumes: fixed vectors, round trips, refusal of what is damaged."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import (
    ChecksumMismatch,
    ContentTooLong,
    DescriptionTooLong,
    InvalidContent,
    MetadataCleared,
    StorageError,
    UnsupportedVersion,
)
from storage.ondisk import domain_fields, domain_metadata, volume_metadata
from storage.ondisk.values import Allocation, DomainKind, DomainStatus, Legality, VolumeFormat, VolumeRole
from storage.ondisk.volume_metadata import VolumeMetadata
from vdsm.common.ids import BLANK_UUID

SD = "275766cb-c7d8-43d6-a663-4e52160de620"
IMG = "11111111-2222-4333-8444-555555555555"
VECTOR = {
    "ALIGNMENT": "1048576",
    "BLOCK_SIZE": "512",
    "CLASS": "Data",
    "DESCRIPTION": "storage domain",
    "IOOPTIMEOUTSEC": "10",
    "LEASERETRIES": "3",
    "LEASETIMESEC": "60",
    "LOCKPOLICY": "",
    "LOCKRENEWALINTERVALSEC": "5",
    "POOL_UUID": "",
    "REMOTE_PATH": "server:/path",
    "ROLE": "Regular",
    "SDUUID": SD,
    "TYPE": "LOCALFS",
    "VERSION": "5",
}

uuids = st.uuids().map(str)
line_text = st.text(st.characters(blacklist_characters="\n\r\0", blacklist_categories=("Cs",)), max_size=60)
keys = st.from_regex(r"[A-Z_0-9]{1,20}", fullmatch=True).filter(lambda k: k != "_SHA_CKSUM")


def test_domain_checksum_vector():
    assert domain_metadata.checksum(VECTOR) == "9336f77705ff9e3d5faf65c4d0dc818a29de458d"


def test_new_domain_is_the_vector_byte_for_byte():
    made = domain_fields.new_file_domain(
        domain_id=SD,
        kind=DomainKind.LOCALFS,
        description="storage domain",
        remote_path="server:/path",
        block_size=512,
        alignment=1 << 20,
    )
    lines = sorted([f"{k}={v}" for k, v in VECTOR.items()] + ["_SHA_CKSUM=9336f77705ff9e3d5faf65c4d0dc818a29de458d"])
    assert domain_fields.encode(made) == "".join(line + "\n" for line in lines).encode()


@given(st.dictionaries(keys, line_text, min_size=1, max_size=20))
def test_domain_metadata_comes_back(fields):
    assert domain_metadata.decode(domain_metadata.encode(fields), "x") == fields


def test_unknown_keys_survive_a_change():
    data = domain_metadata.encode({**VECTOR, "A_LATER_KEY": "kept"})
    changed = domain_fields.decode(data, "x").with_fields({"ROLE": "Master"})
    assert domain_metadata.decode(domain_fields.encode(changed), "x")["A_LATER_KEY"] == "kept"


def test_every_flipped_byte_of_domain_metadata_is_refused():
    data = domain_metadata.encode(VECTOR)
    for place in range(len(data)):
        for bit in (0x01, 0x80):
            flipped = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            with pytest.raises(ChecksumMismatch, match="/dom_md/metadata"):
                domain_metadata.decode(flipped, "/dom_md/metadata")


def test_checksum_error_names_file_expected_and_found():
    data = domain_metadata.encode(VECTOR).replace(b"ROLE=Regular", b"ROLE=Regulas")
    with pytest.raises(ChecksumMismatch) as e:
        domain_metadata.decode(data, "/rhev/x/dom_md/metadata")
    text = str(e.value)
    assert "/rhev/x/dom_md/metadata" in text
    assert "9336f77705ff9e3d5faf65c4d0dc818a29de458d" in text
    assert domain_metadata.checksum({**VECTOR, "ROLE": "Regulas"}) in text


def test_metadata_without_checksum_is_accepted():
    text = "".join(f"{k}={v}\n" for k, v in VECTOR.items()).encode()
    assert domain_metadata.decode(text + b"\0" * 100, "x") == VECTOR


@pytest.mark.parametrize("data", [b"", b"\0" * 512, b"no equals\n", b"=x\n", b"A=1\nA=2\n", b"\xff\xfe=1\n"])
def test_what_is_no_domain_metadata_is_refused(data):
    with pytest.raises(InvalidContent, match="the file"):
        domain_metadata.decode(data, "the file")


def test_oversized_domain_metadata_is_refused():
    with pytest.raises(ContentTooLong):
        domain_metadata.decode(b"A=" + b"x" * (64 << 10), "x")


@given(st.binary(max_size=2000))
def test_any_bytes_as_domain_metadata_give_fields_or_a_storage_error(data):
    try:
        metadata = domain_fields.decode(data, "x")
        for name in ("version", "domain_id", "kind", "role", "block_size", "alignment", "pools", "pool_domains"):
            getattr(metadata, name)
    except StorageError:
        pass


def test_typed_fields():
    metadata = domain_fields.decode(domain_metadata.encode(VECTOR), "x").with_fields(
        domain_fields.master_fields(
            pool_id=IMG, pool_description="dc", domains={SD: DomainStatus.ACTIVE}, master_version=1
        )
    )
    assert metadata.pools == [IMG]
    assert metadata.pool_domains == {SD: DomainStatus.ACTIVE}
    assert (metadata.master_version, metadata.spm_id, metadata.spm_lver) == (1, -1, -1)
    assert metadata.with_fields({"POOL_UUID": BLANK_UUID}).pools == []
    assert metadata.with_fields({"POOL_DOMAINS": f"{SD}:Inactive"}).pool_domains == {SD: DomainStatus.ATTACHED}


@pytest.mark.parametrize(
    ("key", "value"),
    [("BLOCK_SIZE", "513"), ("ALIGNMENT", "x"), ("BLOCK_SIZE", "9" * 5000), ("SDUUID", "../x"), ("TYPE", "ZFS")],
)
def test_bad_domain_fields_are_refused(key, value):
    metadata = domain_fields.DomainMetadata({**VECTOR, key: value}, "the file")
    with pytest.raises(InvalidContent, match=f"the file is not valid: {key}"):
        _ = (metadata.block_size, metadata.alignment, metadata.domain_id, metadata.kind)


def test_unknown_version_is_refused():
    with pytest.raises(UnsupportedVersion, match="6"):
        _ = domain_fields.DomainMetadata({**VECTOR, "VERSION": "6"}).version


def test_domain_description_limit():
    domain_fields.check_description("d" * 50)
    with pytest.raises(DescriptionTooLong, match="51 characters"):
        domain_fields.check_description("d" * 51)


def volume(**changes):
    fields = {
        "domain_id": SD,
        "image_id": IMG,
        "parent_id": BLANK_UUID,
        "capacity": 10737418240,
        "format": VolumeFormat.COW,
        "allocation": Allocation.SPARSE,
        "role": VolumeRole.LEAF,
        "ctime": 1700000000,
        "sequence": 1,
    }
    return VolumeMetadata(**{**fields, **changes})


def test_volume_metadata_vector():
    data = volume_metadata.encode(volume())
    assert len(data) == 257
    assert data.decode() == (
        "CAP=10737418240\nCTIME=1700000000\nDESCRIPTION=\nDISKTYPE=DATA\n"
        f"DOMAIN={SD}\nFORMAT=COW\nGEN=0\nIMAGE={IMG}\nLEGALITY=LEGAL\nPUUID={BLANK_UUID}\n"
        "SEQ=1\nTYPE=SPARSE\nVOLTYPE=LEAF\nEOF\n"
    )


volumes = st.builds(
    VolumeMetadata,
    domain_id=uuids,
    image_id=uuids,
    parent_id=uuids,
    capacity=st.integers(0, 1 << 62),
    format=st.sampled_from(VolumeFormat),
    allocation=st.sampled_from(Allocation),
    role=st.sampled_from(VolumeRole),
    disk_type=st.sampled_from(["DATA", "OVFS", "SCRD"]),
    description=line_text.filter(lambda t: len(t.encode()) <= 210),
    legality=st.sampled_from(Legality),
    ctime=st.integers(0, 1 << 40),
    generation=st.integers(0, 999),
    sequence=st.integers(0, (1 << 32) - 1),
)


@given(volumes)
def test_volume_metadata_comes_back_and_fits_its_slot(metadata):
    block = volume_metadata.encode_block(metadata)
    assert len(block) == 512
    assert volume_metadata.decode(block, "x") == metadata


def test_the_worst_volume_metadata_fits_512_bytes():
    worst = volume(
        description="x" * 210,
        capacity=volume_metadata.MAX_CAPACITY,
        allocation=Allocation.PREALLOCATED,
        role=VolumeRole.INTERNAL,
        legality=Legality.ILLEGAL,
        ctime=99999999999,
        generation=999,
        sequence=volume_metadata.MAX_SEQUENCE,
    )
    assert len(volume_metadata.encode(worst)) <= 512


def test_volume_description_is_limited_in_characters_and_bytes():
    volume_metadata.check_description("x" * 210)
    with pytest.raises(DescriptionTooLong, match=r"'description'.*211 characters"):
        volume_metadata.check_description("x" * 211)
    with pytest.raises(DescriptionTooLong, match="420 bytes"):
        volume_metadata.check_description("é" * 210)


@pytest.mark.parametrize("version", ["V3", "V4"])
def test_size_of_old_formats_is_read_in_blocks(version):
    text = volume_metadata.encode(volume()).replace(b"CAP=10737418240\n", b"SIZE=20971520\nMTIME=0\n")
    assert volume_metadata.decode(text, version).capacity == 10737418240


def test_cap_wins_over_size():
    text = b"SIZE=1\n" + volume_metadata.encode(volume())
    assert volume_metadata.decode(text, "x").capacity == 10737418240


def test_legacy_disk_type_reads_as_data():
    assert volume_metadata.decode(volume_metadata.encode(volume(disk_type="2")), "x").disk_type == "DATA"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"EOF\n", b""),
        (b"CAP=10737418240", b"CAP=-1"),
        (b"CAP=10737418240", b"CAP=" + b"9" * 30),
        (b"CAP=10737418240\n", b""),
        (b"FORMAT=COW", b"FORMAT=VHD"),
        (b"DOMAIN=", b"DOMAIN=/etc/"),
        (b"GEN=0", b"GEN=1000"),
        (b"SEQ=1", b"SEQ=1\nSEQ=2"),
        (b"TYPE=SPARSE", b"garbage"),
    ],
)
def test_damaged_volume_metadata_is_refused_by_place(old, new):
    data = volume_metadata.encode(volume()).replace(old, new, 1)
    with pytest.raises(InvalidContent, match="the file"):
        volume_metadata.decode(data, "the file")


def test_cleared_volume_metadata():
    with pytest.raises(MetadataCleared):
        volume_metadata.decode(b"NONE=" + b"#" * 400 + b"\nEOF\n", "x")


@given(st.binary(max_size=600))
def test_any_bytes_as_volume_metadata_give_a_volume_or_a_storage_error(data):
    with contextlib.suppress(StorageError):
        volume_metadata.decode(data, "x")


def test_generation_wraps():
    assert volume(generation=999).with_next_generation().generation == 0


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\ud800"])
def test_descriptions_are_one_line_of_real_characters(character):
    for check in (domain_fields.check_description, volume_metadata.check_description):
        with pytest.raises(InvalidContent, match="'description'"):
            check(f"a{character}b")
