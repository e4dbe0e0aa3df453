# SPDX-License-Identifier: GPL-2.0-or-later
"""A cable that takes its time: carries frames between a port and its bridge, those of the host's side late.

``python -m contrib.lab.slow_wire PORT DELAY_MS`` in the fabric's network namespace takes the port from its bridge and
puts a tap in its place; when its input ends, the port is put back. Many test machines' kernels have no netem. Each
frame comes with the header in which the kernel says which checksums and segments are still to be made.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque

TAP = "slow-wire"
TUNSETIFF, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ALL_PROTOCOLS = 3
FRAME = 70_000
HEADER_BYTES = 10


def main(port: str, delay_ms: int) -> None:
    # not from /sys: that shows the network namespace in which it was mounted
    bridge = json.loads(_ip(f"-j link show {port}"))[0]["master"]
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"{TAP}-{port}"[:15]
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tap, TUNSETVNETHDRSZ, struct.pack("i", HEADER_BYTES))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ALL_PROTOCOLS)) as wire:
        wire.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        wire.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        wire.bind((port, 0))
        _ip(f"link set {port} nomaster")
        _ip(f"link set {port} promisc on")
        _ip(f"link set {name} master {bridge} up")
        print("carrying", flush=True)
        try:
            _carry(wire, tap, delay_ms / 1000)
        finally:
            os.close(tap)
            _ip(f"link set {port} promisc off")
            _ip(f"link set {port} master {bridge}")


def _carry(wire: socket.socket, tap: int, delay_s: float) -> None:
    late: deque[tuple[float, bytes]] = deque()
    while True:
        wait_s = max(0.0, late[0][0] - time.monotonic()) if late else None
        ready, _, _ = select.select([wire, tap, sys.stdin], [], [], wait_s)
        if sys.stdin in ready:
            return
        if wire in ready:
            late.append((time.monotonic() + delay_s, wire.recv(FRAME)))
        if tap in ready:
            _send(wire.fileno(), os.read(tap, FRAME))
        while late and late[0][0] <= time.monotonic():
            _send(tap, late.popleft()[1])


def _send(descriptor: int, frame: bytes) -> None:
    with contextlib.suppress(OSError):  # a full queue loses frames, as a network does
        os.write(descriptor, frame)


def _ip(command: str) -> bytes:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True).stdout


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
