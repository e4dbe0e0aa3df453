# SPDX-License-Identifier: GPL-2.0-or-later
from typing import Any, TypedDict

HOST_UNKNOWN: int
HOST_FREE: int
HOST_LIVE: int
HOST_FAIL: int
HOST_DEAD: int
LSFLAG_ADD: int
LSFLAG_REM: int

class SanlockException(Exception):
    @property
    def errno(self) -> int: ...

class _Host(TypedDict):
    host_id: int
    generation: int
    timestamp: int
    io_timeout: int
    flags: int

class _Resource(TypedDict):
    lockspace: bytes
    resource: bytes
    version: int

_Disks = list[tuple[str, int]]

def register() -> int: ...
def add_lockspace(
    lockspace: bytes, host_id: int, path: str, offset: int = ..., iotimeout: int = ..., wait: bool = ...
) -> None: ...
def inq_lockspace(lockspace: bytes, host_id: int, path: str, offset: int = ..., wait: bool = ...) -> bool | None: ...
def rem_lockspace(
    lockspace: bytes, host_id: int, path: str, offset: int = ..., wait: bool = ..., unused: bool = ...
) -> None: ...
def get_hosts(lockspace: bytes, host_id: int = ...) -> list[_Host]: ...
def get_lockspaces() -> list[dict[str, Any]]: ...
def write_lockspace(
    lockspace: bytes,
    path: str,
    offset: int = ...,
    max_hosts: int = ...,
    iotimeout: int = ...,
    align: int = ...,
    sector: int = ...,
) -> None: ...
def write_resource(
    lockspace: bytes,
    resource: bytes,
    disks: _Disks,
    max_hosts: int = ...,
    num_hosts: int = ...,
    clear: bool = ...,
    align: int = ...,
    sector: int = ...,
) -> None: ...
def read_lockspace(path: str, offset: int = ..., align: int = ..., sector: int = ...) -> dict[str, Any]: ...
def read_resource(path: str, offset: int = ..., align: int = ..., sector: int = ...) -> _Resource: ...
def read_resource_owners(
    lockspace: bytes, resource: bytes, disks: _Disks, align: int = ..., sector: int = ...
) -> list[_Host]: ...
def acquire(
    lockspace: bytes,
    resource: bytes,
    disks: _Disks,
    slkfd: int = ...,
    pid: int = ...,
    shared: bool = ...,
    version: int | None = ...,
    lvb: bool = ...,
) -> None: ...
def release(lockspace: bytes, resource: bytes, disks: _Disks, slkfd: int = ..., pid: int = ...) -> None: ...
def inquire(slkfd: int = ..., pid: int = ...) -> list[dict[str, Any]]: ...
