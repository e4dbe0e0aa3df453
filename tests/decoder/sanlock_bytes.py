# SPDX-License-Identifier: GPL-2.0-or-later
"""sanlock's areas, each byte accounted for."""

MIB = 1 << 20


def crc(data):
    """CRC-32C bit by bit, initial value 0xFFFFFFFE, not inverted at the end."""
    value = 0xFFFFFFFE
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


def max_hosts(align, sector_size):
    return 2000 if sector_size == 512 else 250 * (align // MIB)


def number(data, offset, size):
    return int.from_bytes(data[offset : offset + size], "little")


def text(data, offset, size=48):
    raw = data[offset : offset + size]
    name = raw.split(b"\0", 1)[0]
    if raw[len(name) :].strip(b"\0"):
        raise ValueError(f"bytes after the name {name!r}")
    return name.decode("ascii")


def leader(sector, align, magic, version_major):
    if number(sector, 0, 4) != magic:
        raise ValueError(f"magic {number(sector, 0, 4):#x}, expected {magic:#x}")
    if number(sector, 4, 4) >> 16 != version_major:
        raise ValueError(f"version {number(sector, 4, 4):#x}")
    if number(sector, 168, 4) != crc(sector[:168]):
        raise ValueError("the leader's checksum is wrong")
    flags = number(sector, 8, 4)
    if flags & 0xF0 != {1: 0x10, 2: 0x20, 4: 0x40, 8: 0x80}[align // MIB]:
        raise ValueError(f"flags {flags:#x} for alignment {align}")
    if any(sector[160:168]) or any(sector[172:174]):
        raise ValueError("unused bytes of the leader are not zero")
    return {
        "sector": number(sector, 12, 4),
        "num_hosts": number(sector, 16, 8),
        "max_hosts": number(sector, 24, 8),
        "owner": number(sector, 32, 8),
        "generation": number(sector, 40, 8),
        "lver": number(sector, 48, 8),
        "space": text(sector, 56),
        "resource": text(sector, 104),
        "timestamp": number(sector, 152, 8),
        "io_timeout": number(sector, 174, 2),
    }


def lockspace(data, name, align, sector_size):
    """Host ids that are in use, with their record. ValueError names the first wrong byte's place."""
    if len(data) != align:
        raise ValueError(f"ids has {len(data)} bytes, expected {align}")
    hosts = {}
    count = max_hosts(align, sector_size)
    for place in range(0, count * sector_size, sector_size):
        sector = data[place : place + sector_size]
        if not any(sector):
            raise ValueError(f"no delta lease at {place}")
        found = leader(sector, align, 0x12212010, 3)
        host_id = place // sector_size + 1
        if found["space"] != name:
            raise ValueError(f"lease {host_id} is of lockspace {found['space']!r}")
        if (found["sector"], found["num_hosts"], found["max_hosts"]) != (sector_size, 0, 1):
            raise ValueError(f"lease {host_id} states other sizes: {found}")
        if any(sector[200:256]) or any(sector[512:]):
            raise ValueError(f"lease {host_id} has bytes where none are")
        if found["timestamp"]:
            if found["owner"] != host_id:
                raise ValueError(f"lease {host_id} is owned by {found['owner']}")
            hosts[host_id] = found
    _zeros(data, count * sector_size, "ids")
    return hosts


def resource(data, space, name, align, sector_size):
    """The leader of one resource, every other byte checked."""
    if len(data) != align:
        raise ValueError(f"resource {name} has {len(data)} bytes, expected {align}")
    found = leader(data[:sector_size], align, 0x06152010, 6)
    if (found["space"], found["resource"]) != (space, name):
        raise ValueError(f"resource {found['space']}:{found['resource']}, expected {space}:{name}")
    count = max_hosts(align, sector_size)
    if (found["sector"], found["num_hosts"], found["max_hosts"]) != (sector_size, count, count):
        raise ValueError(f"resource {name} states other sizes: {found}")
    _zeros(data[:sector_size], 200, f"leader of {name}")
    request = data[sector_size : 2 * sector_size]
    if any(request) and (number(request, 0, 4), number(request, 4, 4)) != (0x08292011, 0x00010001):
        raise ValueError(f"request record of {name}")
    _zeros(request, 24, f"request record of {name}")  # sanlock leaves the padding of its C struct as it was
    for host_id in range(1, count + 1):
        place = (host_id + 1) * sector_size
        block = data[place : place + sector_size]
        if not any(block[:128]):
            _zeros(block, 140, f"block {host_id} of {name}")
            continue
        if number(block, 48, 4) != crc(block[:48]):
            raise ValueError(f"block {host_id} of {name} has a wrong checksum")
        _zeros(block[:128], 56, f"block {host_id} of {name}")
        _zeros(block, 140, f"block {host_id} of {name}")
    _zeros(data, (count + 3) * sector_size, f"resource {name}")
    return found


def _zeros(data, start, what):
    rest = data[start:]
    if rest.count(0) != len(rest):
        place = start + next(i for i, byte in enumerate(rest) if byte)
        raise ValueError(f"{what}: byte {place} is not zero")
