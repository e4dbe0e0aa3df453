# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands to a micro-VM's QEMU over its QMP socket, one connection for a few commands."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any, Self

from contrib.lab.control import HostFailed

ANSWER_S = 10.0


class Qmp:
    """``with host.qmp() as qmp: qmp.command("stop")``. Raises HostFailed when QEMU refuses or is gone."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(ANSWER_S)
        try:
            self._connection.connect(self._path)
            self._reader = self._connection.makefile("rb")
            self._reader.readline()
        except OSError as error:
            self._connection.close()
            raise HostFailed(f"QEMU does not answer on {self._path}: {error}") from error
        self.command("qmp_capabilities")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self._connection.close()

    def command(self, name: str, /, **arguments: Any) -> Any:
        self._connection.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while line := self._reader.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise HostFailed(f"QEMU refused {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise HostFailed(f"QEMU ended during {name}")
