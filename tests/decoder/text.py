# SPDX-License-Identifier: GPL-2.0-or-later
"""The two text formats: domain metadata under a checksum, volume metadata up to its EOF line."""

import hashlib
import re

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BLANK = "00000000-0000-0000-0000-000000000000"

GEOMETRY_KEYS = {
    "ALIGNMENT": r"1048576|2097152|4194304|8388608",
    "BLOCK_SIZE": r"512|4096",
}
DOMAIN_KEYS = {
    "CLASS": r"Data|Iso|Backup",
    "DESCRIPTION": r".{0,50}",
    "IOOPTIMEOUTSEC": r"10",
    "LEASERETRIES": r"3",
    "LEASETIMESEC": r"60",
    "LOCKPOLICY": r"",
    "LOCKRENEWALINTERVALSEC": r"5",
    "POOL_UUID": rf"|{UUID.pattern}(,{UUID.pattern})*",
    "REMOTE_PATH": r".+",
    "ROLE": r"Master|Regular",
    "SDUUID": UUID.pattern,
    "TYPE": r"LOCALFS|POSIXFS|NFS",
    "VERSION": r"0|3|4|5",
}
MASTER_KEYS = {
    "MASTER_VERSION": r"[0-9]+",
    "POOL_DESCRIPTION": r".{0,50}",
    "POOL_DOMAINS": rf"({UUID.pattern}:(Unknown|Attached|Unattached|Active)(,(?=.)|$))*",
    "POOL_SPM_ID": r"-1|[0-9]+",
    "POOL_SPM_LVER": r"-1|[0-9]+",
}
CAPACITY_KEYS = {
    "V3 and V4": {"MTIME": r"0", "SIZE": r"[0-9]+"},
    "between V4 and V5": {"CAP": r"[0-9]+", "MTIME": r"0", "SIZE": r"[0-9]+"},
    "V5": {"CAP": r"[0-9]+", "SEQ": r"[0-9]{1,10}"},
}
VOLUME_KEYS = {
    "CTIME": r"[0-9]+",
    "DESCRIPTION": r".{0,210}",
    "DISKTYPE": r"DATA|ISOF|MEMD|MEMM|OVFS|HEVD|HESD|HEMD|HECI|SCRD",
    "DOMAIN": UUID.pattern,
    "FORMAT": r"RAW|COW",
    "GEN": r"[0-9]{1,3}",
    "IMAGE": UUID.pattern,
    "LEGALITY": r"LEGAL|ILLEGAL|FAKE",
    "PUUID": UUID.pattern,
    "TYPE": r"PREALLOCATED|SPARSE",
    "VOLTYPE": r"SHARED|INTERNAL|LEAF",
}


def domain(data):
    """Fields of ``dom_md/metadata``; ValueError says what is wrong."""
    lines = _sorted_lines(data)
    digest = hashlib.sha1()
    stored = None
    for line in lines:
        if line.startswith("_SHA_CKSUM="):
            stored = line[11:]
        else:
            digest.update(line.encode("ascii", "xmlcharrefreplace"))
    if stored != digest.hexdigest():
        raise ValueError(f"checksum {stored}, content has {digest.hexdigest()}")
    fields = _fields(line for line in lines if not line.startswith("_SHA_CKSUM="))
    allowed = dict(DOMAIN_KEYS)
    if fields.get("VERSION") == "5":
        allowed.update(GEOMETRY_KEYS)
    # written when a pool is made on the domain; they stay when its role moves on, and the next master has none of them
    # unless the pool's map is kept there. A pool that is destroyed leaves the version.
    if "POOL_DOMAINS" in fields:
        allowed.update(MASTER_KEYS)
    elif "MASTER_VERSION" in fields:
        allowed["MASTER_VERSION"] = "0"
    _match(fields, allowed)
    if fields["CLASS"] == "Data" and fields["VERSION"] == "0":
        raise ValueError("a data domain of version 0")
    if fields["CLASS"] != "Iso" and "," in fields["POOL_UUID"]:
        raise ValueError(f"in more than one pool: {fields['POOL_UUID']}")
    return fields


def volume(data, version="5", *, converting=False):
    """Fields of a ``.meta`` file in a domain of this version.

    ``converting``: the domain's conversion to V5 may have been cut off anywhere, so that both ways to state the
    capacity may stand there. They agree then. CAP is in every answer.
    """
    if len(data) > 512:
        raise ValueError(f"{len(data)} bytes, at most 512 are allowed")
    if not data.endswith(b"\nEOF\n"):
        raise ValueError("the last line is not EOF")
    lines = _sorted_lines(data[:-4])
    fields = _fields(lines)
    form = "V5" if version == "5" else "V3 and V4"
    if converting and {"CAP", "SIZE"} <= set(fields):
        form = "between V4 and V5"
    _match(fields, {**VOLUME_KEYS, **CAPACITY_KEYS[form]})
    size = int(fields["SIZE"]) * 512 if "SIZE" in fields else None
    if size is not None and int(fields.get("CAP", size)) != size:
        raise ValueError(f"CAP is {fields['CAP']}, SIZE is {fields['SIZE']} blocks of 512 bytes")
    return {"CAP": str(size), **fields}


def _sorted_lines(data):
    text = data.decode("utf-8")
    if not text.endswith("\n"):
        raise ValueError("the last line has no end")
    lines = text[:-1].split("\n")
    keys = [line.split("=", 1)[0] for line in lines]
    if keys != sorted(keys):
        raise ValueError(f"keys are not sorted: {keys}")
    return lines


def _fields(lines):
    fields = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals or key in fields:
            raise ValueError(f"bad line {line!r}")
        fields[key] = value
    return fields


def _match(fields, allowed):
    if set(fields) != set(allowed):
        raise ValueError(f"keys {sorted(set(fields) ^ set(allowed))} are missing or too much")
    for key, pattern in allowed.items():
        if not re.fullmatch(pattern, fields[key]):
            raise ValueError(f"{key} is {fields[key]!r}")
