# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 headers: those that qemu-img writes, and those that nobody honest writes."""

import struct
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.errors import InvalidContent
from storage.ondisk import qcow2

PARENT = "275766cb-c7d8-43d6-a663-4e52160de620"


def made(tmp_path, *options, size="1M"):
    path = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, size], check=True)
    return path.read_bytes()[: qcow2.HEAD_SIZE]


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
@pytest.mark.parametrize("cluster", ["512", "64k", "2M"])
def test_what_qemu_writes_is_read(tmp_path, compat, cluster):
    options = ["-o", f"compat={compat},cluster_size={cluster}", "-u", "-b", PARENT, "-F", "raw"]
    found = qcow2.decode(made(tmp_path, *options, size="3M"), "x")
    assert (found.virtual_size, found.backing_file, found.backing_format) == (3 << 20, PARENT, "raw")
    assert (found.has_data_file, found.unknown_features, found.encryption) == (False, 0, 0)


def test_no_backing_file_is_no_name(tmp_path):
    found = qcow2.decode(made(tmp_path), "x")
    assert (found.backing_file, found.backing_format) == ("", "")


@pytest.mark.parametrize("option", ["compression_type=zstd", "extended_l2=on", "lazy_refcounts=on"])
def test_features_of_today_are_known(tmp_path, option):
    found = qcow2.decode(made(tmp_path, "-o", option), "x")
    assert (found.has_data_file, found.unknown_features) == (False, 0)


@pytest.mark.parametrize("raw", ["on", "off"])
def test_a_data_file_is_seen(tmp_path, raw):
    data = made(tmp_path, "-o", f"data_file={tmp_path}/elsewhere,data_file_raw={raw}")
    found = qcow2.decode(data, "x")
    assert found.has_data_file
    assert found.data_file == f"{tmp_path}/elsewhere"


def changed(data, offset, form, value):
    raw = struct.pack(form, value)
    return data[:offset] + raw + data[offset + len(raw) :]


@pytest.fixture
def image(tmp_path):
    return made(tmp_path, "-u", "-b", PARENT, "-F", "raw")


def test_a_data_file_is_seen_by_its_feature_or_by_its_name(image, tmp_path):
    assert qcow2.decode(changed(image, 72, ">Q", 4), "x").has_data_file
    named = made(tmp_path, "-o", f"data_file={tmp_path}/elsewhere")
    assert qcow2.decode(changed(named, 72, ">Q", 0), "x").has_data_file


@pytest.mark.parametrize("bit", [5, 6, 31, 63])
def test_unknown_features_are_told(image, bit):
    assert qcow2.decode(changed(image, 72, ">Q", 1 << bit), "x").unknown_features == 1 << bit


def test_encryption_is_told(image):
    assert qcow2.decode(changed(image, 32, ">I", 2), "x").encryption == 2


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (0, ">I", 0x514649FA, "no qcow2"),
        (4, ">I", 1, "version 1"),
        (4, ">I", 4, "version 4"),
        (20, ">I", 8, "clusters"),
        (20, ">I", 22, "clusters"),
        (20, ">I", 0xFFFFFFFF, "clusters"),
        (16, ">I", 1024, "1024 bytes"),
        (8, ">Q", 65530, "at 65530"),
        (8, ">Q", 1 << 63, "backing file"),
        (24, ">Q", 1 << 63, "virtual size"),
        (100, ">I", 0, "header has 0 bytes"),
        (100, ">I", 103, "header has 103 bytes"),
    ],
)
def test_a_header_that_is_none_is_refused(image, offset, form, value, reason):
    with pytest.raises(InvalidContent, match=f"^the file.*{reason}"):
        qcow2.decode(changed(image, offset, form, value), "the file")


@pytest.mark.parametrize("size", [3, 4, 71, 72, 103])
def test_a_header_that_is_cut_off_is_refused(image, size):
    with pytest.raises(InvalidContent):
        qcow2.decode(image[:size], "x")


def test_a_name_that_is_cut_off_is_refused(image):
    (place,) = struct.unpack_from(">Q", image, 8)
    with pytest.raises(InvalidContent, match="cut off"):
        qcow2.decode(image[: place + 10], "x")


def test_an_extension_past_the_end_is_refused(image):
    with pytest.raises(InvalidContent, match="past the header's end"):
        qcow2.decode(changed(image, struct.unpack_from(">I", image, 100)[0] + 4, ">I", 0xFFFFFFF0), "x")


def test_a_name_that_is_no_text_is_refused(image):
    (place,) = struct.unpack_from(">Q", image, 8)
    with pytest.raises(InvalidContent, match="no text"):
        qcow2.decode(changed(image, place, ">B", 0xFF), "x")


@given(st.binary(max_size=400), st.integers(0, 400))
@example(b"", 0)
def test_any_bytes_give_a_header_or_a_refusal(junk, place):
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 300, 40, 16, 1 << 20, 0, 1, 0, 0, 1, 0, 0)
    data = bytearray(header + bytes(400))
    data[place : place + len(junk)] = junk
    for candidate in (junk, bytes(data), header[:4] + junk):
        try:
            found = qcow2.decode(candidate, "x")
        except InvalidContent:
            continue
        assert len(found.backing_file) <= qcow2.MAX_NAME
        assert 0 <= found.virtual_size < 1 << 63
