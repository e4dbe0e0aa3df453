# SPDX-License-Identifier: GPL-2.0-or-later
"""The process outside a host that outlives everybody: it makes the host and removes every trace of it.

    starter --pipe--> keeper --> unshare --> init (the host's PID 1)

The keeper has a session of its own (Ctrl-C does not reach it). It ends the host when the pipe from the starter closes,
which the kernel does however the starter died; when told by SIGTERM; or when the host dies itself. If the keeper is
killed, parent-death signals kill the host, and `registry.sweep` removes what is left.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

from contrib.lab import groups, kernel_calls
from contrib.lab.registry import Record, start_time
from contrib.lab.spec import HostSpec

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child=KILL")


def main() -> int:
    line = sys.stdin.buffer.readline()
    spec = HostSpec.from_json(line.decode())
    record = Record(spec.name, os.getpid(), start_time(os.getpid()), host_id=spec.host_id)
    record.save()
    told, telling = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    child: subprocess.Popen[bytes] | None = None
    try:
        record.cgroups = groups.create(spec.name)
        record.save()
        child = _start(line, record.cgroups)
        assert child.stdout is not None
        _watch(record, child, told)
    finally:
        if child is not None:
            _power_cut(record, child)
        left = record.remove_traces()
    if left:
        print(f"left behind by {spec.name}: {' '.join(left)}", file=sys.stderr)
    return 1 if left else 0


def _start(line: bytes, cgroups: list[str]) -> subprocess.Popen[bytes]:
    def before_exec() -> None:
        kernel_calls.die_with_parent()
        groups.enter(cgroups)

    child = subprocess.Popen(
        ["unshare", *NAMESPACES, "--", sys.executable, "-m", "contrib.lab.init"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=before_exec,  # noqa: PLW1509 - the keeper has one thread
    )
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.close()
    return child


def _watch(record: Record, child: subprocess.Popen[bytes], told: int) -> None:
    """Report readiness, then wait for whatever ends the host."""
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        for source in (sys.stdin.fileno(), told, child.stdout.fileno()):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == sys.stdin.fileno():
                    return
                if key.fd == told:
                    numbers = os.read(told, 64)
                    if signal.SIGCHLD not in numbers or len(set(numbers)) > 1 or child.poll() is not None:
                        return
                elif key.fd == child.stdout.fileno():
                    answer = child.stdout.readline().decode().strip()
                    selector.unregister(child.stdout)
                    if answer == "ready":
                        record.host = _only_child(child.pid)
                        record.image_device = os.stat(f"/proc/{record.host}/root/srv").st_dev
                        record.save()
                        answer = f"ready {record.host}"
                    print(answer or "failed: the host's first process died", flush=True)
                    if not answer.startswith("ready"):
                        return


def _power_cut(record: Record, child: subprocess.Popen[bytes]) -> None:
    groups.thaw(record.cgroups)
    victim = record.host or _only_child(child.pid)
    if victim and child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    if child.poll() is None and not victim:
        child.kill()
    child.wait()


def _only_child(pid: int) -> int:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


if __name__ == "__main__":
    sys.exit(main())
