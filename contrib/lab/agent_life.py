# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent and root helper on a test host: started, killed, waited for, called. The same for hosts of either kind."""

from __future__ import annotations

import abc
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from contrib.lab.control import Control, HostFailed
from contrib.lab.spec import PYTHON

if TYPE_CHECKING:
    from vdsm.client import Client

AGENT_LOG = "/var/log/vdsm/agent.log"
ROOT_LOG = "/var/log/vdsm-root.log"
AGENT_SOCKET = "/run/vdsm/vdsm.sock"
NO_TASK = b"00000000-0000-0000-0000-000000000000"
ROOT_SOCKET = "/run/vdsm-root/root.sock"
# held by who runs, with its number inside; who looks at a host that another program started finds it by these
AGENT_LOCK = "/run/vdsm/agent.lock"
ROOT_LOCK = "/run/vdsm-root/helper.lock"


class AgentLife(abc.ABC):
    # how long each of the two may take until it answers
    start_s = 20.0
    # between two looks whether they do
    look_s = 0.01

    def __init__(self) -> None:
        self.agent_pid = 0
        self.root_pid = 0

    # -- what a host of either kind gives

    @property
    @abc.abstractmethod
    def control(self) -> Control: ...

    @abc.abstractmethod
    def _run(
        self, argv: Sequence[str], user: str, stdin: bytes, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the host to its end, whatever that is."""

    @abc.abstractmethod
    def answers(self, inside: str) -> bool:
        """Whether somebody listens on that socket of the host."""

    @abc.abstractmethod
    def outer_socket(self, inside: str) -> str:
        """Path by which this process connects to that socket of the host."""

    @abc.abstractmethod
    def tail(self, log: str) -> str:
        """The last lines of a log of the host; empty when it can't be read."""

    # -- the same for all

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: bytes = b"",
        timeout_s: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside to its end; with ``check`` a failing one raises HostFailed."""
        done = self._run(argv, user, stdin, timeout_s)
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace")[-800:]
            raise HostFailed(f"{' '.join(argv)} ended with {done.returncode}: {said}")
        return done

    def forget_agent(self) -> None:
        """After a power cut there is neither agent nor root helper."""
        self.agent_pid = self.root_pid = 0

    def start_process(
        self, argv: Sequence[str], *, log: str, user: str = "root", env: Mapping[str, str] | None = None
    ) -> int:
        """Start a process of the host's own; returns its number inside."""
        return self.control.start(argv, log=log, user=user, env=env)

    def start_agent(self, env: Mapping[str, str] | None = None, *, timeout_s: float | None = None) -> None:
        """Start the root helper (unless it runs) and the agent; returns once its verbs answer."""
        timeout_s = timeout_s or self.start_s
        self.start_root_helper(env)
        self.agent_pid = self.start_process([PYTHON, "-m", "vdsm.cli", "serve"], log=AGENT_LOG, user="vdsm", env=env)
        self._until_answers(AGENT_SOCKET, self.agent_pid, AGENT_LOG, timeout_s)
        self._until_ready(timeout_s)

    def start_root_helper(self, env: Mapping[str, str] | None = None) -> None:
        self.root_pid = self.root_pid or self._holder(ROOT_LOCK)
        if self.root_pid and not self._has_ended(self.root_pid):
            return
        self.root_pid = self.start_process([PYTHON, "-m", "vdsm.root.server"], log=ROOT_LOG, env=env)
        self._until_answers(ROOT_SOCKET, self.root_pid, ROOT_LOG, self.start_s)

    def kill_agent(self, number: signal.Signals = signal.SIGKILL, *, timeout_s: float = 30) -> int | None:
        """Signal the agent and wait for its end; returns its exit code (negative: signal)."""
        self.agent_pid = self.agent_pid or self._running("agent", AGENT_LOCK)
        return self._kill(self.agent_pid, number, timeout_s)

    def kill_root_helper(self, number: signal.Signals = signal.SIGKILL, *, timeout_s: float = 30) -> int | None:
        self.root_pid = self.root_pid or self._running("root helper", ROOT_LOCK)
        return self._kill(self.root_pid, number, timeout_s)

    def wait_agent(self, *, timeout_s: float) -> int | None:
        """Wait until the agent ends by itself (a crash point); returns its exit code."""
        return self.control.wait(self.agent_pid, timeout_s=timeout_s)

    def restart_agent(self, env: Mapping[str, str] | None = None, *, timeout_s: float | None = None) -> None:
        """Kill -9 and start again."""
        if self.agent_lives:
            self.kill_agent()
        self.start_agent(env, timeout_s=timeout_s)

    @property
    def agent_lives(self) -> bool:
        return self.agent_pid != 0 and not self._has_ended(self.agent_pid)

    def client(self) -> Client:
        from vdsm.client import Client

        return Client.unix(self.outer_socket(AGENT_SOCKET))

    def _kill(self, pid: int, number: signal.Signals, timeout_s: float) -> int | None:
        self.control.signal(pid, number)
        return self.control.wait(pid, timeout_s=timeout_s)

    def _running(self, what: str, lock: str) -> int:
        pid = self._holder(lock)
        if not pid:
            raise HostFailed(f"no {what} runs there")
        return pid

    def _holder(self, lock: str) -> int:
        """Number of the process that holds a lock; 0 when none does, whatever the file says."""
        script = '[ -e "$1" ] && ! flock -n "$1" true && cat "$1"'
        done = self.run(["sh", "-c", script, "holder", lock], check=False)
        return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else 0

    def _has_ended(self, pid: int) -> bool:
        return not self.control.signal(pid, 0)

    def _until_answers(self, socket_path: str, pid: int, log: str, timeout_s: float) -> None:
        """A listening socket of another process appears without an event for us: look every `look_s`."""
        limit = time.monotonic() + timeout_s
        while True:
            if self._has_ended(pid):
                code = self.control.wait(pid, timeout_s=1)
                raise HostFailed(f"{log}: process ended with {code} at start\n{self.tail(log)}")
            if self.answers(socket_path):
                return
            if time.monotonic() > limit:
                raise HostFailed(f"{socket_path} does not answer after {timeout_s:.0f} s\n{self.tail(log)}")
            time.sleep(self.look_s)

    def _until_ready(self, timeout_s: float) -> None:
        """Until its parts are up and its VMs found again, every change is refused with code 99.

        Asked by a change that there is nothing to do for: clearing a task that nobody has started.
        """
        limit = time.monotonic() + timeout_s
        body = b'{"jsonrpc":"2.0","method":"Task.clear","params":{"taskID":"%s"},"id":1}' % NO_TASK
        head = b"POST /jsonrpc HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        while not self._has_ended(self.agent_pid):
            answer = b""
            with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.connect(self.outer_socket(AGENT_SOCKET))
                connection.sendall(head + body)
                while part := connection.recv(65536):
                    answer += part
            if b'"jsonrpc"' in answer and b'"code":99,' not in answer:
                return
            if time.monotonic() > limit:
                raise HostFailed(f"the agent is not ready after {timeout_s:.0f} s\n{self.tail(AGENT_LOG)}")
            time.sleep(self.look_s)
        code = self.control.wait(self.agent_pid, timeout_s=1)
        raise HostFailed(f"{AGENT_LOG}: process ended with {code} at start\n{self.tail(AGENT_LOG)}")
