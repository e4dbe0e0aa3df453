# SPDX-License-Identifier: GPL-2.0-or-later
"""A hypervisor in a micro-VM, driven from outside without any of its networks.

    with MicroHost(luns=[lun]) as host:          # 6 s, software emulation
        host.run(["pvcreate", "/dev/disk/by-id/..."])
        host.start_agent()
        async with host.client() as client: ...
        host.power_cut()                         # SIGKILL of QEMU: page cache lost, disk kept
        host.start()                             # boots from the same disk

Its folder holds the disk, QEMU's and the console's output, and the sockets of the `channel`; it is removed by the
`with` block, or by `python -m contrib.lab down --all` when the starter was killed.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contrib.lab import registry
from contrib.lab.agent_life import AgentLife
from contrib.lab.control import Control, HostFailed
from contrib.lab.fabric import Fabric
from contrib.lab.host import LOGS, compile_checkout
from contrib.lab.microvm import boots, keeper, qemu, spec, terminal
from contrib.lab.microvm.qmp import Qmp
from contrib.lab.spec import CHECKOUT

BOOT_S = 400.0
# a boot that stands still is begun anew
ATTEMPTS = 3
# between two looks at a booting host
LOOK_S = 0.5
# what the executor may take beyond a command's own deadline
GRACE_S = 5.0
# for QEMU to be started, before it boots
START_S = 30.0
# the smallest command: its answer comes from a host that is finished
IS_UP = json.dumps({"argv": ["true"], "user": "root", "timeout_s": 60, "stdin_bytes": 0}).encode() + b"\n"


class MicroHost(AgentLife):
    start_s = 90.0
    # each look is a process of an emulated machine
    look_s = 0.4

    def __init__(self, name: str | None = None, *, fabric: Fabric | None = None, **fields: Any) -> None:
        """``fields`` are those of `MicroSpec`: memory_mib, cpus, nics, luns, watchdog, apparmor, vfio, ..."""
        super().__init__()
        name = name or f"micro-{secrets.token_hex(3)}"
        self._folder = ExitStack()
        folder = str(self._folder.enter_context(registry.folder(name)))
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        self.spec = spec.MicroSpec(
            name=name, host_id=str(uuid.uuid4()), folder=folder, fabric=fabric.pid if fabric else 0, **fields
        )
        self.pid = 0
        self._keeper: subprocess.Popen[str] | None = None

    @classmethod
    def attached(cls, folder: str, pid: int) -> Self:
        """A running host of another process, to look at and to work in; only its own starter can stop it."""
        host = cls.__new__(cls)
        AgentLife.__init__(host)
        host.spec = spec.MicroSpec.from_json(Path(folder, qemu.SPEC_FILE).read_text())
        host.pid = pid
        host._keeper = None
        return host

    # -- life

    def start(self) -> Self:
        """Boot until every daemon listens; no agent yet. A boot that stands still is begun anew.

        Raises HostFailed with the console's last lines.
        """
        registry.sweep(also_living=False)
        compile_checkout()
        disk = self.spec.path(spec.DISK)
        if not disk.exists():
            with open(disk, "wb") as file:
                file.truncate(spec.DISK_BYTES)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", disk], check=True, timeout=60)
        for _ in range(ATTEMPTS):
            began = time.monotonic()
            stall = self._boot()
            boots.note(self.spec.name, time.monotonic() - began, stall)
            if not stall:
                return self
            console = self.console()
            self.power_cut()
        raise HostFailed(f"host {self.spec.name} stood still at boot {ATTEMPTS} times ({stall}):\n{console[-3000:]}")

    def _boot(self) -> str:
        """Start QEMU and wait for the host; why it stands still, empty when it is up."""
        self.spec.path(keeper.EVENTS).unlink(missing_ok=True)
        self.forget_agent()
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "contrib.lab.microvm.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )
        try:
            return self._await_boot(self._keeper)
        except BaseException:
            self.power_cut()
            raise

    def power_cut(self) -> None:
        """SIGKILL of QEMU; the disk stays for the next `start`."""
        process, self._keeper = self._keeper, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()
        self.pid = 0
        self.forget_agent()

    def stop(self) -> None:
        """The power cut, and its folder removed."""
        self.power_cut()
        self._folder.close()

    def wait_ended(self, *, timeout_s: float) -> float:
        """Wait until QEMU ends by itself (the host reset or powered off); returns the seconds waited."""
        if self._keeper is None:
            raise HostFailed(f"host {self.spec.name} is not up")
        start = time.monotonic()
        try:
            self._keeper.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise HostFailed(f"host {self.spec.name} still runs after {timeout_s:g} s") from None
        waited = time.monotonic() - start
        self.power_cut()
        return waited

    def events(self) -> list[dict[str, Any]]:
        """QEMU's events since the start, the last one ENDED once it has."""
        with contextlib.suppress(FileNotFoundError):
            lines = self.spec.path(keeper.EVENTS).read_text().splitlines()
            return [entry for line in lines if "event" in (entry := json.loads(line))]
        return []

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- inside

    def _run(
        self, argv: Sequence[str], user: str, stdin: bytes, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Raises TimeoutError after ``timeout_s``: the command was killed, or the host does not answer."""
        what = " ".join(argv)
        request = {"argv": list(argv), "user": user, "timeout_s": timeout_s, "stdin_bytes": len(stdin)}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s + GRACE_S)
            try:
                connection.connect(str(self.spec.path("exec.sock")))
                connection.sendall(json.dumps(request).encode() + b"\n" + stdin)
                with connection.makefile("rb") as reader:
                    done = _take_answer(argv, reader)
            except TimeoutError:
                raise TimeoutError(f"{self.spec.name} did not answer within {timeout_s:g} s: {what}") from None
            except (OSError, ValueError) as error:
                raise HostFailed(f"{self.spec.name} is gone ({error}): {what}") from error
        if done is None:
            raise TimeoutError(f"killed after {timeout_s:g} s: {what}")
        return done

    def attach(self, argv: Sequence[str], *, typed: bool) -> int:
        """Run a command joined to this process's output and, if ``typed``, its input; the exit code.

        It has a terminal of its own where this process's input is one.
        """
        try:
            return terminal.attach(str(self.spec.path("exec.sock")), argv, typed=typed)
        except OSError as error:
            raise HostFailed(f"{self.spec.name} is gone ({error}): {' '.join(argv)}") from error

    def put(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file inside."""
        self.run(
            ["sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod $2 "$1"', "put", path, f"{mode:o}"],
            stdin=content,
        )

    def get(self, path: str) -> bytes:
        """A file's content from inside."""
        return self.run(["cat", path]).stdout

    def qmp(self) -> Qmp:
        """A connection to QEMU, for what only the hardware can do: pull a cable, stop, plug a disk."""
        return Qmp(str(self.spec.path(spec.QMP_SOCKET)))

    @property
    def control(self) -> Control:
        return Control(self.outer_socket(spec.DOORS["control.sock"]))

    def answers(self, inside: str) -> bool:
        return self.run(["test", "-S", inside], check=False).returncode == 0

    def outer_socket(self, inside: str) -> str:
        name = next(name for name, path in spec.DOORS.items() if path == inside)
        return str(self.spec.path(name))

    def tail(self, log: str) -> str:
        with contextlib.suppress(HostFailed, TimeoutError):
            return self.run(["tail", "-c", "3000", log], timeout_s=5).stdout.decode(errors="replace")
        return ""

    # -- evidence

    def console(self) -> str:
        with contextlib.suppress(OSError):
            return self.spec.path(spec.CONSOLE).read_text(errors="replace")
        return ""

    def collect_logs(self, folder: Path) -> None:
        """Copy the host's logs out, as far as it still answers; the console's always."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (spec.CONSOLE, keeper.QEMU_LOG, keeper.EVENTS):
            with contextlib.suppress(OSError):
                shutil.copy(self.spec.path(name), folder)
        with contextlib.suppress(HostFailed, TimeoutError, OSError):
            archive = self.run(
                ["tar", "-C", "/", "-cf", "-", "--ignore-failed-read", *(log.lstrip("/") for log in LOGS)],
                check=False,
                timeout_s=20,
            )
            subprocess.run(
                ["tar", "-C", str(folder), "-xf", "-"], input=archive.stdout, check=False, capture_output=True
            )

    def _await_boot(self, process: subprocess.Popen[str]) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self.spec.to_json() + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        answer = process.stdout.readline().split() if ready else ["its keeper said nothing in time"]
        if answer[:1] != ["started"]:
            raise HostFailed(f"host {self.spec.name} did not start: {' '.join(answer) or 'its keeper died'}")
        self.pid = int(answer[1])
        watch = boots.Watch(self.pid, self.spec.path(spec.CONSOLE))
        limit = time.monotonic() + BOOT_S
        while process.poll() is None and time.monotonic() < limit:
            # no answer while the door is closed: the question waits in the line until it opens
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as question:
                question.connect(str(self.spec.path("exec.sock")))
                question.sendall(IS_UP)
                while not select.select([question], [], [], LOOK_S)[0]:
                    if stall := watch.stalled():
                        return stall
                    if process.poll() is not None or time.monotonic() > limit:
                        break
                else:
                    if question.recv(1):
                        return ""
            time.sleep(LOOK_S)
        raise HostFailed(f"host {self.spec.name} did not boot:\n{self.console()[-3000:]}")


def _take_answer(argv: Sequence[str], reader: io.BufferedReader | Any) -> subprocess.CompletedProcess[bytes] | None:
    """The executor's answer; None when it killed the command at its deadline."""
    line = reader.readline()
    if not line:
        raise OSError("no answer")
    answer = json.loads(line)
    if "error" in answer:
        raise HostFailed(f"{' '.join(argv)}: {answer['error']}")
    out, err = reader.read(answer["out_bytes"]), reader.read(answer["err_bytes"])
    if answer["timed_out"]:
        return None
    return subprocess.CompletedProcess(list(argv), answer["code"], out, err)
