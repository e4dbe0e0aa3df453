# SPDX-License-Identifier: GPL-2.0-or-later
"""Initial RAM file systems: busybox, an /init script and the kernel modules that it loads, as cpio."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from contrib.lab import kernels

FOLDERS = ("bin", "dev", "proc", "sys", "modules")


def archive(
    kernel: kernels.Kernel,
    *,
    modules: Sequence[str],
    init: str,
    folders: Sequence[str] = (),
    scripts: Mapping[str, str] | None = None,
) -> bytes:
    """The archive, not compressed. /modules/order lists the modules in the order of loading. Raises KernelMissing."""
    files: list[tuple[str, int, bytes]] = [(name, 0o040755, b"") for name in (*FOLDERS, *folders)]
    files.append(("bin/busybox", 0o100755, Path(_busybox()).read_bytes()))
    files.append(("init", 0o100755, init.encode()))
    files += [(name, 0o100755, text.encode()) for name, text in (scripts or {}).items()]
    order = []
    for name, content in _modules(kernel, modules):
        order.append(name)
        files.append((f"modules/{name}", 0o100644, content))
    files.append(("modules/order", 0o100644, "".join(f"{name}\n" for name in order).encode()))
    members = [_member(number, *member) for number, member in enumerate(files, 1)]
    return b"".join(members) + _member(0, "TRAILER!!!", 0, b"")


def _busybox() -> str:
    for path in (shutil.which("busybox.static"), shutil.which("busybox")):
        if path and b"ld-linux" not in Path(path).read_bytes()[:4096]:
            return path
    raise kernels.KernelMissing("no static busybox: run `make setup`")


def _modules(kernel: kernels.Kernel, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The wanted modules that this kernel has not built in, each after what it depends on."""
    found = {path.name.split(".")[0].replace("-", "_"): path for path in kernel.modules.rglob("*.ko*")}
    done: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done or name not in found:
            return
        done.add(name)
        content = _unpacked(found[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", content)
        for needed in depends[1].decode().split(",") if depends else ():
            yield from load(needed.replace("-", "_"))
        yield f"{name}.ko", content

    for name in wanted:
        yield from load(name)


def _unpacked(path: Path) -> bytes:
    tools = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"], ".gz": ["gzip", "-dc"]}
    if path.suffix not in tools:
        return path.read_bytes()
    return subprocess.run([*tools[path.suffix], str(path)], capture_output=True, check=True).stdout


def _member(inode: int, name: str, mode: int, content: bytes) -> bytes:
    """One member in cpio's "newc" format."""
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _aligned(head) + _aligned(content)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
