# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata of domains and volumes: fixed vectors, round trips, refusal of what is damaged."""

import contextlib
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import (
    ChecksumMismatch,
    ContentTooLong,
    DescriptionTooLong,
    DomainNameTooLong,
    InvalidContent,
    MetadataCleared,
    NameNotAscii,
    PoolNameTooLong,
    StorageError,
    UnsupportedVersion,
)
from storage.ondisk import domain_fields, domain_metadata, volume_metadata
from storage.ondisk.values import (
    Allocation,
    DomainClass,
    DomainKind,
    DomainStatus,
    FormatVersion,
    Legality,
    VolumeFormat,
    VolumeRole,
)
from storage.ondisk.volume_metadata import VolumeMetadata
from tests.decoder import text as decoder
from vdsm.common.ids import BLANK_UUID

MIB = 1 << 20
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
        version=FormatVersion.V5,
        description="storage domain",
        remote_path="server:/path",
        block_size=512,
        alignment=1 << 20,
    )
    lines = sorted([f"{k}={v}" for k, v in VECTOR.items()] + ["_SHA_CKSUM=9336f77705ff9e3d5faf65c4d0dc818a29de458d"])
    assert domain_fields.encode(made) == "".join(line + "\n" for line in lines).encode()


def new_domain(version, **changes):
    fields = {
        "domain_id": SD,
        "kind": DomainKind.LOCALFS,
        "version": version,
        "description": "storage domain",
        "remote_path": "server:/path",
        "block_size": 512,
        "alignment": MIB,
    }
    return domain_fields.new_file_domain(**{**fields, **changes})


@pytest.mark.parametrize("version", [FormatVersion.V3, FormatVersion.V4])
def test_a_new_domain_of_an_old_format_states_no_sizes(version):
    made = new_domain(version)
    assert made.fields == {
        **{k: v for k, v in VECTOR.items() if k not in ("ALIGNMENT", "BLOCK_SIZE")},
        "VERSION": str(int(version)),
    }
    assert (made.block_size, made.alignment) == (512, MIB)
    assert decoder.domain(domain_fields.encode(made)) == made.fields


@pytest.mark.parametrize("domain_class", [DomainClass.ISO, DomainClass.BACKUP])
def test_a_new_domain_of_version_0_is_for_iso_files_or_exports(domain_class):
    made = new_domain(FormatVersion.V0, domain_class=domain_class)
    assert (made.fields["VERSION"], made.fields["CLASS"]) == ("0", domain_class.value)
    assert decoder.domain(domain_fields.encode(made)) == made.fields


def test_a_data_domain_of_version_0_is_refused():
    with pytest.raises(UnsupportedVersion, match="version 0"):
        new_domain(FormatVersion.V0)
    old = domain_fields.decode(domain_metadata.encode({**VECTOR, "VERSION": "0"}), "the file")
    with pytest.raises(UnsupportedVersion, match="the file"):
        old.check_geometry()


@pytest.mark.parametrize(("version", "taken"), [(0, False), (3, True), (5, True)])
def test_only_domains_of_version_0_want_an_ascii_name(version, taken):
    with contextlib.nullcontext() if taken else pytest.raises(NameNotAscii, match="données"):
        domain_fields.check_name("données", FormatVersion(version))


@given(st.dictionaries(keys, line_text, min_size=1, max_size=20))
def test_domain_metadata_comes_back(fields):
    assert domain_metadata.decode(domain_metadata.encode(fields), "x") == fields


def test_unknown_keys_survive_a_change():
    data = domain_metadata.encode({**VECTOR, "A_LATER_KEY": "kept"})
    changed = domain_fields.decode(data, "x").with_fields({"ROLE": "Master"})
    assert domain_metadata.decode(domain_fields.encode(changed), "x")["A_LATER_KEY"] == "kept"


def test_no_flipped_bit_of_domain_metadata_changes_what_is_read():
    data = domain_metadata.encode(VECTOR)
    refused = 0
    for place in range(len(data)):
        for bit in (0x01, 0x80):
            flipped = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            try:
                assert domain_metadata.decode(flipped, "/dom_md/metadata") == VECTOR
            except ChecksumMismatch:
                refused += 1
    assert refused > 2 * len(data) - 30  # the others made another line's end of one, or cut off the checksum's name


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


@pytest.mark.parametrize("data", [b"", b"\0" * 512, b"no equals\n", b"=x\n", b"\xff\xfe=1\n"])
def test_what_is_no_domain_metadata_is_refused(data):
    with pytest.raises(InvalidContent, match="the file"):
        domain_metadata.decode(data, "the file")


def dressed(data, how):
    """The text as others write it."""
    lines = data.decode().splitlines()
    return {
        "CRLF": "\r\n".join(lines) + "\r\n",
        "CR": "\r".join(lines),
        "blank lines": "\n\n" + "\n \n\n".join(lines) + "\n\n",
        "no last newline": "\n".join(lines),
        "another order": "\n".join(reversed(lines)) + "\n",
        "comments": "# by hand\n" + "\n".join(f"{line}\nand so on" for line in lines),
        "blanks around keys": "".join(f"  {line.replace('=', ' =', 1)}\n" for line in lines),
        "padding": "\n".join(lines) + "\n" + "\0" * 600,
        "an older value before": f"ROLE=Master\nGEN=7\nLEGALITY=ILLEGAL\n{data.decode()}",
    }[how].encode()


DRESSES = ["CRLF", "CR", "blank lines", "no last newline", "another order", "comments", "blanks around keys", "padding"]


@pytest.mark.parametrize("how", DRESSES)
def test_domain_metadata_in_another_dress_reads_the_same(how):
    assert domain_metadata.decode(dressed(domain_metadata.encode(VECTOR), how), "x") == VECTOR


@pytest.mark.parametrize("how", DRESSES)
def test_damage_is_seen_under_another_dress(how):
    data = dressed(domain_metadata.encode(VECTOR).replace(b"Regular", b"Regulas"), how)
    with pytest.raises(ChecksumMismatch):
        domain_metadata.decode(data, "x")


def test_of_a_key_that_stands_there_twice_the_last_value_holds():
    assert domain_metadata.decode(b"A=1\nB=2\nA=3\n", "x") == {"A": "3", "B": "2"}
    sealed = domain_metadata.encode({**VECTOR, "ROLE": "Master"})
    assert domain_metadata.decode(b"ROLE=Regular\n" + sealed, "x")["ROLE"] == "Master"


def test_values_with_blanks_are_kept_as_they_are_and_understood():
    spaced = {**VECTOR, "VERSION": " 5", "TYPE": "NFS ", "ROLE": " Master", "BLOCK_SIZE": " 4096 ", "SDUUID": f" {SD}"}
    metadata = domain_fields.decode(domain_metadata.encode(spaced), "x")
    assert (metadata.version, metadata.kind, metadata.role, metadata.block_size) == (5, "NFS", "Master", 4096)
    assert metadata.domain_id == SD
    assert metadata.fields == spaced


def test_pool_domains_as_older_writers_quoted_them():
    metadata = domain_fields.DomainMetadata({"POOL_DOMAINS": f"'{SD}:active', {IMG}:INACTIVE,"})
    assert metadata.pool_domains == {SD: DomainStatus.ACTIVE, IMG: DomainStatus.ATTACHED}
    assert domain_fields.DomainMetadata({"POOL_UUID": f"{IMG}, {SD}"}).pools == [IMG, SD]


SPLITTERS = list("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")


def vdsm_reads(data):
    """As VDSM does: lines of str.splitlines, checksum over what they say."""
    fields = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
    expected = fields.pop("_SHA_CKSUM")
    digest = hashlib.sha1("".join(f"{k}={v}" for k, v in sorted(fields.items())).encode("ascii", "xmlcharrefreplace"))
    assert digest.hexdigest() == expected, "the seal is broken"
    return fields


@given(st.text(max_size=50))
def test_what_is_taken_as_a_name_is_read_by_vdsm(text):
    metadata = domain_fields.DomainMetadata(VECTOR)
    try:
        name = domain_fields.check_name(text, FormatVersion.V5)
    except InvalidContent:
        assert set(text) & {*SPLITTERS, "\0"} or any("\ud800" <= c <= "\udfff" for c in text)
        return
    changed = metadata.with_fields({"DESCRIPTION": name, "POOL_DESCRIPTION": name})
    assert vdsm_reads(domain_fields.encode(changed)) == changed.fields


@pytest.mark.parametrize("character", SPLITTERS)
@pytest.mark.parametrize("key", ["DESCRIPTION", "REMOTE_PATH", "POOL_DOMAINS"])
def test_no_change_brings_a_line_break_of_any_kind(character, key):
    with pytest.raises(InvalidContent, match=key):
        domain_fields.DomainMetadata(VECTOR).with_fields({key: f"a{character}b"})
    with pytest.raises(InvalidContent):
        domain_fields.new_file_domain(
            domain_id=SD,
            kind=DomainKind.NFS,
            version=FormatVersion.V5,
            description="d",
            remote_path=f"a{character}b",
            block_size=512,
            alignment=MIB,
        )


@pytest.mark.parametrize("character", SPLITTERS[2:])
def test_a_name_with_a_line_break_of_another_kind_is_read_and_can_be_changed(character):
    named = {**VECTOR, "DESCRIPTION": f"a{character}b"}
    metadata = domain_fields.decode(domain_metadata.encode(named), "x")
    assert metadata.description == f"a{character}b"
    assert domain_fields.decode(domain_fields.encode(metadata.with_fields({"ROLE": "Master"})), "x").role == "Master"
    assert vdsm_reads(domain_fields.encode(metadata.with_fields({"DESCRIPTION": "mended"})))["DESCRIPTION"] == "mended"


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


GEOMETRIES = {(5, 512, 1), (5, 4096, 1), (5, 4096, 2), (5, 4096, 4), (5, 4096, 8), (4, 512, 1), (3, 512, 1)}


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize("alignment", [1, 2, 4, 8])
def test_only_some_versions_have_other_sizes_of_blocks_and_leases(version, block_size, alignment):
    known = (version, block_size, alignment) in GEOMETRIES
    sizes = {"VERSION": str(version), "BLOCK_SIZE": str(block_size), "ALIGNMENT": str(alignment * MIB)}
    metadata = domain_fields.DomainMetadata({**VECTOR, **sizes}, "the file")
    with contextlib.nullcontext() if known else pytest.raises(InvalidContent, match="the file"):
        metadata.check_geometry()


@pytest.mark.parametrize("version", ["1", "2", "6"])
def test_unknown_version_is_refused(version):
    with pytest.raises(UnsupportedVersion, match=version):
        _ = domain_fields.DomainMetadata({**VECTOR, "VERSION": version}).version


def test_domain_description_limit():
    domain_fields.check_name("d" * 50, FormatVersion.V5)
    with pytest.raises(DomainNameTooLong, match="51 characters"):
        domain_fields.check_name("d" * 51, FormatVersion.V5)


def test_the_name_of_a_pool_has_the_same_limit_and_its_own_error():
    fields = {"pool_id": "p", "domains": {}, "master_version": 1}
    assert domain_fields.master_fields(pool_description="d" * 50, **fields)["POOL_DESCRIPTION"] == "d" * 50
    with pytest.raises(PoolNameTooLong, match="51 characters"):
        domain_fields.master_fields(pool_description="d" * 51, **fields)


def encode(metadata, version=FormatVersion.V5):
    return volume_metadata.encode(metadata, version)


def encode_block(metadata, version=FormatVersion.V5):
    return volume_metadata.encode_block(metadata, version)


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
    data = encode(volume())
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
    description=line_text.filter(lambda t: len(t.encode()) <= 210).map(str.strip),
    legality=st.sampled_from(Legality),
    ctime=st.integers(0, 1 << 40),
    generation=st.integers(0, 999),
    sequence=st.integers(0, (1 << 32) - 1),
)


@given(volumes)
def test_volume_metadata_comes_back_and_fits_its_slot(metadata):
    block = encode_block(metadata)
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
    assert len(encode(worst)) <= 512


@pytest.mark.parametrize("how", [*DRESSES, "an older value before"])
def test_volume_metadata_in_another_dress_reads_the_same(how):
    made = volume(description="d e f")
    data = dressed(encode(made).replace(b"EOF\n", b""), how)
    found = volume_metadata.decode(data, "x")
    assert replace(found, unknown=()) == replace(made, unknown=())


@pytest.mark.parametrize("end", [b"EOF", b"EOF\nCAP=1\n", b"EOFx\nCAP=1", b""])
def test_volume_metadata_ends_at_eof_or_where_the_file_does(end):
    data = encode(volume()).replace(b"EOF\n", end)
    assert volume_metadata.decode(data, "x") == volume()


def test_blanks_around_values_of_volumes_are_not_part_of_them():
    data = encode(volume()).replace(b"=", b" = ").replace(b"\n", b" \n")
    assert volume_metadata.decode(data, "x") == volume()


def test_a_volume_without_legality_is_legal():
    data = encode(volume()).replace(b"LEGALITY=LEGAL\n", b"")
    assert volume_metadata.decode(data, "x").legality is Legality.LEGAL


def test_unknown_keys_of_volumes_survive_a_change():
    data = encode(volume()).replace(b"EOF", b"MTIME=0\nM_LATER_KEY=kept \nEOF")
    again = encode(replace(volume_metadata.decode(data, "x"), legality=Legality.ILLEGAL))
    assert b"\nM_LATER_KEY=kept\n" not in data
    assert b"M_LATER_KEY=kept\n" in again
    assert b"MTIME" not in again
    assert again.decode().splitlines()[:-1] == sorted(again.decode().splitlines()[:-1])


def test_unknown_keys_give_way_where_a_slot_is_full():
    known = volume(description="d" * 200)
    full = replace(known, unknown=(("Z", "z" * 100),))
    assert encode_block(full) == encode_block(known)


@pytest.mark.parametrize("description", ["é" * 110, "漢" * 210, "d" * 210])
@pytest.mark.parametrize("legality", Legality)
def test_a_description_that_vdsm_wrote_is_read_kept_and_changed_around(description, legality):
    data = encode(volume()).replace(b"DESCRIPTION=", b"DESCRIPTION=" + description.encode())
    found = volume_metadata.decode(data, "x")
    assert found.description == description
    changed = replace(found, legality=legality, role=VolumeRole.INTERNAL, generation=999)
    assert volume_metadata.decode(encode(changed), "x") == changed


@pytest.mark.parametrize("value", ["a\nCAP=1", "a\rb"])
@pytest.mark.parametrize("field", ["description", "disk_type"])
def test_no_value_of_a_volume_becomes_a_second_line(field, value):
    with pytest.raises(InvalidContent, match="line break"):
        encode(volume(**{field: value}))


fields_of_vdsm = st.fixed_dictionaries(
    {
        "CAP": st.integers(0, 1 << 62).map(str),
        "CTIME": st.integers(0, 1 << 40).map(str),
        "DESCRIPTION": st.text(st.characters(exclude_characters="\n\r", exclude_categories=("Cs",)), max_size=210),
        "DISKTYPE": st.sampled_from(["DATA", "2", "OVFS"]),
        "DOMAIN": uuids,
        "FORMAT": st.sampled_from(["RAW", "COW"]),
        "IMAGE": uuids,
        "PUUID": uuids,
        "TYPE": st.sampled_from(["SPARSE", "PREALLOCATED"]),
        "VOLTYPE": st.sampled_from(["LEAF", "INTERNAL", "SHARED"]),
    },
    optional={
        "GEN": st.integers(0, 999).map(str),
        "SEQ": st.integers(0, 1 << 31).map(str),
        "SIZE": st.just("1"),
        "MTIME": st.just("0"),
        "LEGALITY": st.sampled_from(["LEGAL", "ILLEGAL", "FAKE"]),
        "LATER": line_text.map(str.strip),
    },
)


@given(
    fields_of_vdsm,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", " "]),
    st.sampled_from(["", "EOF\n", "\n\nEOF"]),
)
def test_what_was_on_disk_is_never_refused_on_the_way_back(fields, newline, blank, end):
    text = newline.join(f"{blank}{key}{blank}={blank}{value}" for key, value in fields.items()) + newline + end
    found = volume_metadata.decode(text.encode(), "x")
    assert volume_metadata.decode(encode(found), "x") == found
    assert (str(found.capacity), found.description) == (fields["CAP"], fields["DESCRIPTION"].strip())
    assert dict(found.unknown).get("LATER") == fields.get("LATER")


def test_the_largest_file_that_is_read_is_written_again():
    text = encode(volume()).replace(b"GEN=0\n", b"").replace(b"EOF\n", b"")
    data = text + b"Z=" + b"z" * (4096 - len(text) - 2)
    found = volume_metadata.decode(data, "x")
    assert volume_metadata.decode(encode(found), "x") == replace(found, unknown=())


def test_a_nul_within_a_value_is_no_reason_to_refuse_what_was_read():
    metadata = domain_fields.decode(b"A=x\0y\nB=1\n\0\0", "x")
    assert domain_fields.decode(domain_fields.encode(metadata.with_fields({"B": "2"})), "x").fields["A"] == "x\0y"


def test_a_slot_holds_512_bytes():
    with pytest.raises(ContentTooLong):
        encode_block(volume(description="é" * 200))


def test_volume_metadata_over_its_limit_is_refused():
    with pytest.raises(ContentTooLong, match="4096"):
        encode(volume(description="d" * 4096))
    with pytest.raises(ContentTooLong, match="4096"):
        volume_metadata.decode(b"x" * 4097, "x")


def test_volume_description_is_limited_in_characters_and_bytes():
    volume_metadata.check_description("x" * 210)
    with pytest.raises(DescriptionTooLong, match=r"'description'.*211 characters"):
        volume_metadata.check_description("x" * 211)
    with pytest.raises(DescriptionTooLong, match="420 bytes"):
        volume_metadata.check_description("é" * 210)


@pytest.mark.parametrize("version", [FormatVersion.V3, FormatVersion.V4])
def test_volume_metadata_of_old_formats_byte_for_byte(version):
    """Size in blocks of 512 bytes, a time that means nothing, no place for the sequence."""
    data = encode(volume(sequence=7), version)
    assert data.decode() == (
        f"CTIME=1700000000\nDESCRIPTION=\nDISKTYPE=DATA\nDOMAIN={SD}\nFORMAT=COW\nGEN=0\nIMAGE={IMG}\n"
        f"LEGALITY=LEGAL\nMTIME=0\nPUUID={BLANK_UUID}\nSIZE=20971520\nTYPE=SPARSE\nVOLTYPE=LEAF\nEOF\n"
    )
    assert decoder.volume(data, str(int(version)))["CAP"] == "10737418240"
    assert volume_metadata.decode(data, "x") == volume(sequence=0)


def test_a_volume_that_is_being_converted_states_both_sizes_byte_for_byte():
    data = volume_metadata.encode_between(volume(sequence=0))
    assert data.decode() == (
        f"CAP=10737418240\nCTIME=1700000000\nDESCRIPTION=\nDISKTYPE=DATA\nDOMAIN={SD}\nFORMAT=COW\nGEN=0\nIMAGE={IMG}\n"
        f"LEGALITY=LEGAL\nMTIME=0\nPUUID={BLANK_UUID}\nSIZE=20971520\nTYPE=SPARSE\nVOLTYPE=LEAF\nEOF\n"
    )
    for version in ("4", "5"):
        assert decoder.volume(data, version, converting=True)["CAP"] == "10737418240"
    assert volume_metadata.decode(data, "x") == volume(sequence=0)


@given(st.data())
def test_old_formats_come_back_but_for_the_sequence(data):
    metadata = replace(data.draw(volumes), capacity=data.draw(st.integers(0, 1 << 53)) * 512)
    for version in (FormatVersion.V3, FormatVersion.V4):
        written = encode(metadata, version)
        assert volume_metadata.decode(written, "x") == replace(metadata, sequence=0)
        assert volume_metadata.decode(encode_block(metadata, version), "x") == replace(metadata, sequence=0)
    between = volume_metadata.encode_between(metadata)
    assert volume_metadata.decode(between, "x") == replace(metadata, sequence=0)


def test_a_capacity_that_is_no_whole_block_is_not_cut_in_old_formats():
    assert b"\nSIZE=3\n" in encode(volume(capacity=1025), FormatVersion.V4)


def test_unknown_keys_survive_in_old_formats_and_what_a_later_one_wrote_does_not():
    data = encode(volume(sequence=9)).replace(b"EOF", b"M_LATER_KEY=kept\nEOF")
    again = encode(volume_metadata.decode(data, "x"), FormatVersion.V3)
    assert b"\nM_LATER_KEY=kept\n" in again
    assert b"SEQ=" not in again
    assert b"CAP=" not in again


def test_cap_wins_over_size():
    text = b"SIZE=1\n" + encode(volume())
    assert volume_metadata.decode(text, "x").capacity == 10737418240


def test_legacy_disk_type_reads_as_data():
    assert volume_metadata.decode(encode(volume(disk_type="2")), "x").disk_type == "DATA"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"VOLTYPE=LEAF\nEOF\n", b""),
        (b"VOLTYPE=LEAF\nEOF\n", b"VOLTYPE=LE"),
        (b"CAP=10737418240", b"CAP=-1"),
        (b"LEGALITY=LEGAL", b"LEGALITY="),
        (b"VOLTYPE=LEAF", b"VOLTYPE=leaf"),
        (b"CTIME=1700000000", b"CTIME=now"),
        (b"GEN=0", b"GEN=x"),
        (b"PUUID=", b"EOF\nPUUID="),
        (b"DISKTYPE=DATA", b"DISKTYPE=\xff"),
        (b"CAP=10737418240", b"CAP=" + b"9" * 30),
        (b"CAP=10737418240\n", b""),
        (b"FORMAT=COW", b"FORMAT=VHD"),
        (b"DOMAIN=", b"DOMAIN=/etc/"),
        (b"TYPE=SPARSE", b"garbage"),
    ],
)
def test_damaged_volume_metadata_is_refused_by_place(old, new):
    data = encode(volume()).replace(old, new, 1)
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


@pytest.mark.parametrize("character", [*SPLITTERS, "\0", "\ud800"])
@pytest.mark.parametrize("form", ["a{}b", "{}", "a{}", "{}b"])
def test_descriptions_are_one_line_of_real_characters(character, form):
    for check in (lambda name: domain_fields.check_name(name, FormatVersion.V5), volume_metadata.check_description):
        with pytest.raises(InvalidContent, match="'description'"):
            check(form.format(character))
