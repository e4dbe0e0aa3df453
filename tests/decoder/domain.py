# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole domain directory: every file is known, every byte is as the format says, or ValueError."""

import dataclasses
import functools
import os
import stat
import struct

from tests.decoder import sanlock_bytes, text

MAILBOX_FILE = 16 << 20
INDEX_SIZE = 253952


@dataclasses.dataclass
class Volume:
    fields: dict
    path: str
    size: int
    allocated: int
    links: int


@dataclasses.dataclass
class Decoded:
    path: str
    fields: dict
    hosts: dict
    """Host ids in use with their delta lease; empty on LOCALFS."""
    sdm: dict | None
    images: dict
    """Image id to its volumes by id."""
    mail: dict
    external_leases: dict


def decode(path, *, converting=False):
    """Raises ValueError naming the file. ``converting``: to a later version, cut off anywhere: one must be readable."""
    path = str(path)
    sd = os.path.basename(path)
    fields = _in(path, "dom_md/metadata", lambda: text.domain(_read(path, "dom_md/metadata")))
    _check(fields["SDUUID"] == sd, f"SDUUID {fields['SDUUID']} in {path}")
    version = fields["VERSION"]
    shared = fields["TYPE"] != "LOCALFS" and version != "0"
    align, sector = int(fields.get("ALIGNMENT", 1 << 20)), int(fields.get("BLOCK_SIZE", 512))
    _layout(path, fields, external=shared and version in "45", converting=converting)
    hosts, sdm, external = {}, None, {}
    if shared:
        hosts = _in(path, "ids", lambda: sanlock_bytes.lockspace(_read(path, "dom_md/ids"), sd, align, sector))
        sdm = _in(path, "leases", lambda: _sdm(_read(path, "dom_md/leases"), sd, align, sector))
    elif version == "0":
        _in(path, "leases", lambda: _free_lock(_read(path, "dom_md/leases")))
    if shared and version in "45":
        external = _in(path, "xleases", lambda: _xleases(_read(path, "dom_md/xleases"), sd, align))
    for name in () if shared else ("ids",) if version == "0" else ("ids", "leases"):
        _check(os.path.getsize(f"{path}/dom_md/{name}") == 0, f"{name} of a domain without sanlock is not empty")
    mail = {name: _in(path, name, lambda name=name: _mailboxes(_read(path, f"dom_md/{name}"))) for name in BOXES}
    images = {}
    read = functools.partial(text.volume, version=version, converting=converting)
    for image in [] if fields["CLASS"] == "Iso" else sorted(os.listdir(f"{path}/images")):
        images[image] = _image(path, sd, image, shared, align, sector, read)
    _chains(images)
    return Decoded(path, fields, hosts, sdm, images, mail, external)


BOXES = ("inbox", "outbox")


ISO_IMAGE = "11111111-1111-1111-1111-111111111111"
FREE_LOCK = b"------FREE------0000000000000000"
"""The tag of the lock of old: 16 bytes for who has it, 16 digits for since when."""


def _free_lock(data):
    _check(data == FREE_LOCK + bytes(480), f"the lock is not free: {data[:32]!r}")


def _layout(path, fields, *, external, converting):
    expected = {"metadata": 0o644, "ids": 0o660, "leases": 0o660, "inbox": 0o660, "outbox": 0o660}
    found = set(os.listdir(f"{path}/dom_md"))
    if external or (converting and "xleases" in found):
        expected["xleases"] = 0o660
    _check(found == set(expected), f"dom_md holds {sorted(found)}")
    for name, mode in expected.items():
        _mode(f"{path}/dom_md/{name}", mode)
    _mode(f"{path}/dom_md", 0o775)
    _mode(f"{path}/images", 0o755)
    if fields["CLASS"] == "Iso":
        _check(os.listdir(f"{path}/images") == [ISO_IMAGE], f"images holds {os.listdir(f'{path}/images')}")
        _mode(f"{path}/images/{ISO_IMAGE}", 0o755)
    top = set(os.listdir(path))
    _check(top - {"master"} == {"dom_md", "images"}, f"the domain holds {sorted(top)}")
    if "master" in top:
        _mode(f"{path}/master", 0o755)
        _check(set(os.listdir(f"{path}/master")) == {"vms", "tasks"}, "master holds other things than vms and tasks")


def _sdm(data, sd, align, sector):
    _check(len(data) == 2 * align, f"{len(data)} bytes, expected {2 * align}")
    _check(not any(data[:align]), "the first slot is reserved")
    return sanlock_bytes.resource(data[align:], sd, "SDM", align, sector)


def _xleases(data, sd, align):
    _check(len(data) >= align + INDEX_SIZE, f"{len(data)} bytes are too few")
    _check(not any(data[:align]), "the first slot is reserved")
    index = data[align : align + INDEX_SIZE]
    _check(index[0:4] == b"\x12\x15\x20\x16" and index[5:9] == b"0001", "magic or version of the index")
    _check(index[10:58].rstrip(b"\0") == sd.encode(), "lockspace of the index")
    _check(index[59:69].isdigit() and index[70:71] == b"-" and index[511:512] == b"\n", "state of the index")
    for pad in (index[4:5], index[9:10], index[58:59], index[69:70], index[71:511]):
        _check(not any(pad), "padding of the index")
    leases = {}
    for n in range(3960):
        record = index[512 + 64 * n : 576 + 64 * n]
        _check(not any(record[48:49] + record[60:61]), f"padding of record {n}")
        _check(record[61:] == b"--\n", f"state of record {n}")
        if any(record[:48]):
            lease_id = record[:48].rstrip(b"\0").decode()
            _check(bool(text.UUID.fullmatch(lease_id)), f"record {n} is {lease_id!r}")
            _check(int(record[49:60]) == (3 + n) * align, f"offset of record {n}")
            leases[lease_id] = (3 + n) * align
        else:
            _check(record[49:60] == b"0" * 11, f"offset of the free record {n}")
    end = 3 * align if leases else len(data)
    _check(not any(data[align + INDEX_SIZE : end]), "bytes after the index")
    return leases


def _mailboxes(data):
    """Host id to its used slots. Mailbox 0 of the inbox is the event block."""
    _check(len(data) == MAILBOX_FILE, f"{len(data)} bytes, expected {MAILBOX_FILE}")
    used = {}
    if data.count(b"\0") == len(data):  # any() takes a quarter of a second for it
        return used
    for host in range(MAILBOX_FILE // 4096):
        box = data[4096 * host : 4096 * (host + 1)]
        if not any(box):
            continue
        if host == 0 and box[:4] == b"\0evt":
            _check(not any(box[20:]), "bytes after the event")
            continue
        _check(struct.unpack("<i", box[4092:])[0] == sum(box[:4092]), f"checksum of mailbox {host}")
        slots = [box[64 * n : 64 * n + 64] for n in range(63)]
        for slot in slots:
            _check(not any(slot) or slot == b"\1" * 64 or slot[:5] == b"1xtnd", f"message in mailbox {host}")
        used[host] = [n for n, slot in enumerate(slots) if any(slot)]
    return used


def _image(path, sd, image, shared, align, sector, read):
    folder = f"{path}/images/{image}"
    _check(bool(text.UUID.fullmatch(image)), f"{folder} is no image")
    _mode(folder, 0o755)
    names = set(os.listdir(folder))
    ids = {n[: -len(".meta")] for n in names if n.endswith(".meta")}
    suffixes = ("", ".meta", ".lease") if shared else ("", ".meta")
    expected = {i + s for i in ids for s in suffixes}
    missing = expected - names
    _check(names <= expected, f"{folder}: {sorted(names - expected)} are too much")
    volumes = {}
    for vol in sorted(ids):
        file = f"{folder}/{vol}"
        fields = _in(path, f"{vol}.meta", lambda file=file: read(_read(file + ".meta")))
        _check(fields["DOMAIN"] == sd, f"DOMAIN of {file}")
        if fields["LEGALITY"] == "ILLEGAL":  # the deletion had begun: the lease goes first
            missing.discard(vol + ".lease")
        _check(fields["IMAGE"] == image or fields["VOLTYPE"] == "SHARED", f"IMAGE of {file}")
        _check(int(fields["CAP"]) % 4096 == 0, f"CAP of {file}")
        status = os.stat(file)
        _mode(file, 0o660)
        _mode(file + ".meta", 0o644)
        if fields["FORMAT"] == "RAW":
            _check(status.st_size == int(fields["CAP"]), f"{file} has {status.st_size} bytes, CAP {fields['CAP']}")
        else:
            _qcow2(file, fields, read.keywords["version"])
        if shared and vol + ".lease" in names:
            _mode(file + ".lease", 0o660)
            lease = _read(file + ".lease")
            _in(path, f"{vol}.lease", lambda vol=vol, d=lease: sanlock_bytes.resource(d, sd, vol, align, sector))
        volumes[vol] = Volume(fields, file, status.st_size, status.st_blocks * 512, status.st_nlink)
    _check(not missing, f"{folder}: {sorted(missing)} are missing")
    return volumes


def _qcow2(file, fields, version):
    header = _read(file)[:104] if os.path.getsize(file) < (64 << 20) else _head(file, 104)
    magic, qcow2, backing_at, backing_size, _, size = struct.unpack(">4sIQIIQ", header[:32])
    _check(magic == b"QFI\xfb" and qcow2 in (2, 3), f"{file} is no qcow2 of version 2 or 3")
    _check(qcow2 == 2 or version != "3", f"{file} is a qcow2 of version 3 in a domain of version 3")
    _check(size == int(fields["CAP"]), f"{file} has virtual size {size}, CAP {fields['CAP']}")
    backing = ""
    if backing_at:
        with open(file, "rb") as f:
            f.seek(backing_at)
            backing = f.read(backing_size).decode()
    expected = "" if fields["PUUID"] == text.BLANK else fields["PUUID"]
    _check(backing == expected, f"{file} is based on {backing!r}, its metadata says {expected!r}")
    (incompatible,) = struct.unpack(">Q", header[72:80])
    _check(qcow2 == 2 or incompatible & 4 == 0, f"{file} has an external data file")


def _chains(images):
    for image, volumes in images.items():
        parents = [v.fields["PUUID"] for v in volumes.values() if v.fields["PUUID"] != text.BLANK]
        for vol, volume in volumes.items():
            parent = volume.fields["PUUID"]
            _check(parent == text.BLANK or parent in volumes, f"the parent {parent} of {vol} is not in image {image}")
            children = parents.count(vol)
            role = volume.fields["VOLTYPE"]
            _check(role != "LEAF" or children == 0, f"{vol} is a leaf with a child")
            # two for an image that is previewed: two leaves on one volume
            _check(role != "INTERNAL" or children in (1, 2), f"{vol} is internal with {children} children")


def _read(*names):
    with open(os.path.join(*names), "rb") as f:
        return f.read()


def _head(path, size):
    with open(path, "rb") as f:
        return f.read(size)


def _mode(path, mode):
    found = stat.S_IMODE(os.stat(path).st_mode)
    _check(found == mode, f"{path} has mode {found:o}, expected {mode:o}")


def _check(truth, message):
    if not truth:
        raise ValueError(message)


def _in(path, name, call):
    try:
        return call()
    except ValueError as e:
        raise ValueError(f"{path}: {name}: {e}") from e
