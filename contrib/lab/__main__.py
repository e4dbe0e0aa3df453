# SPDX-License-Identifier: GPL-2.0-or-later
"""``./lab`` (``python -m contrib.lab``): real hypervisors on this machine, to play with and to break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contrib.lab import fault_list, labs, registry, typed
from contrib.lab.cluster import Cluster
from contrib.lab.control import HostFailed
from contrib.lab.microvm.host import MicroHost
from contrib.lab.microvm.san import San
from contrib.lab.status import agent_state

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=True, rich_markup_mode=None)
out = Console()
errors = Console(stderr=True)
FAILED, INTERRUPTED = 1, 130
HostName = Annotated[str, typer.Argument(help="a host's name, or the end of it (host1)")]


class Kind(StrEnum):
    NAMESPACE = "namespace"
    MICRO = "micro"


@app.command()
def up(
    hosts: Annotated[int, typer.Option(min=1, max=99, help="how many hypervisors")] = 3,
    kind: Annotated[
        Kind, typer.Option(help="namespaces of this machine, or micro-VMs with a kernel of their own")
    ] = Kind.NAMESPACE,
    agents: Annotated[bool, typer.Option(help="start the agents too")] = True,
) -> None:
    """Make a lab and keep it until Ctrl-C."""
    began = time.monotonic()
    with _interruptible(), ExitStack() as stack:
        with out.status(f"starting {hosts} hosts"):
            lab: Cluster | San = Cluster(hosts) if kind is Kind.NAMESPACE else San(hosts)
            stack.enter_context(lab)
        many = "1 host is" if hosts == 1 else f"{hosts} hosts are"
        out.print(f"{many} up after {time.monotonic() - began:.1f} s")
        if agents:
            with out.status("starting agents"):
                lab.start_agents()
            out.print(f"their agents answer after {time.monotonic() - began:.1f} s")
        status()
        out.print("Ctrl-C removes it all. Elsewhere: ./lab ssh host1 | run host1 -- virsh list | fault | logs host1")
        threading.Event().wait()


@app.command()
def status() -> None:
    """Hosts, their agents, networks and shared storage."""
    everybody = labs.members()
    table = Table("lab", "host", "kind", "state", "agent", "address", box=None, pad_edge=False)
    for member in everybody:
        agent, address = agent_state(member)
        state = "up" if member.is_up else "left behind"
        table.add_row(member.lab.name if member.lab else "", member.name, member.record.kind, state, agent, address)
    if everybody:
        out.print(table)
    else:
        out.print("no hosts: `up` makes some")
    for lab in labs.labs():
        out.print(
            f"{lab.name}: networks {', '.join(lab.networks)}; shared storage {', '.join(lab.storage)}", soft_wrap=True
        )


@app.command()
def ssh(host: HostName) -> None:
    """A shell on a host."""
    handle = labs.member(host).host()
    if isinstance(handle, MicroHost):
        # what this machine's bashrc does takes an emulated host seconds
        raise typer.Exit(handle.attach(["bash", "--norc"], typed=True))
    raise typer.Exit(subprocess.run(handle.command(["bash"]), check=False).returncode)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    host: HostName,
    argv: Annotated[list[str], typer.Argument(help="command and arguments, after --")],
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds until it is killed")] = 60.0,
    user: Annotated[str, typer.Option(help="root or vdsm")] = "root",
) -> None:
    """Run a command on a host, with what this one is given as input; shows its output when it ends, and ends with its
    exit code. What goes on for ever (events --follow) is for ./lab ssh.
    """
    if user not in ("root", "vdsm"):
        raise HostFailed(f"commands run as root or vdsm, not as {user}")
    handle = labs.member(host).host()
    given = typed.given(timeout)
    try:
        done = handle.run(argv, user=user, stdin=given, timeout_s=timeout, check=False)
    except (TimeoutError, subprocess.TimeoutExpired) as e:
        if isinstance(e, subprocess.TimeoutExpired):  # a micro-VM tells what a command wrote at its end only
            _pass_on(e.stdout or b"", e.stderr or b"")
        raise HostFailed(f"killed after {timeout:g} s: {' '.join(argv)}") from None
    _pass_on(done.stdout, done.stderr)
    raise typer.Exit(done.returncode)


def _pass_on(stdout: bytes, stderr: bytes) -> None:
    sys.stdout.buffer.write(stdout)
    sys.stdout.flush()
    sys.stderr.buffer.write(stderr)
    sys.stderr.flush()


@app.command()
def fault(
    name: Annotated[str, typer.Argument(help="which; without: the list")] = "",
    host: Annotated[str, typer.Argument(help="a host's name, or the end of it")] = "",
    arguments: Annotated[list[str] | None, typer.Argument(help="what the fault takes")] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0.1, help="restore after so many seconds, else at Ctrl-C")
    ] = None,
) -> None:
    """Break something for a while; it is restored at the end, at Ctrl-C too."""
    if not name:
        table = Table("fault", "takes", "meaning", box=None, pad_edge=False)
        for known, one in sorted(fault_list.FAULTS.items()):
            table.add_row(known, " ".join(["HOST", *(argument.upper() for argument in one.arguments)]), one.meaning)
        out.print(table)
        return
    if not host:
        raise HostFailed(f"{name} of which host?")
    with _interruptible(), fault_list.hold(name, labs.member(host), arguments or []):
        out.print(f"{name} holds" + (f" for {seconds:g} s" if seconds else " until Ctrl-C"))
        threading.Event().wait(seconds)
    out.print("restored")


@app.command()
def logs(
    host: HostName,
    name: Annotated[
        str, typer.Argument(help="agent, root, libvirtd, sanlock; lab of a namespace host, console of a micro-VM")
    ] = "agent",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on until Ctrl-C")] = False,
) -> None:
    """A host's log."""
    member = labs.member(host)
    handle = member.host()
    is_micro = isinstance(handle, MicroHost)
    paths = {
        "agent": "/var/log/vdsm/agent.log",
        "root": "/var/log/vdsm-root.log",
        "libvirtd": "/var/log/libvirt/libvirtd.log",
        "sanlock": "/var/log/sanlock.log",
    } | ({} if is_micro else {"lab": "/var/log/lab.log"})
    tail = ["tail", "-n", "+1", *(["-f"] if follow else [])]
    if name == "console" and isinstance(handle, MicroHost):
        argv = [*tail, str(handle.spec.path("console.log"))]
    elif name not in paths:
        raise HostFailed(f"no log {name}: there are {', '.join(paths)}" + ", console" * is_micro)
    elif isinstance(handle, MicroHost):
        with _interruptible():
            raise typer.Exit(handle.attach([*tail, paths[name]], typed=False))
    else:
        argv = handle.command([*tail, paths[name]])
    with _interruptible():
        raise typer.Exit(subprocess.run(argv, check=False).returncode)


@app.command()
def down(all_: Annotated[bool, typer.Option("--all", help="also labs whose starter lives")] = False) -> None:
    """Remove what crashed runs left behind."""
    for name in registry.sweep(also_living=all_):
        out.print(f"removed {name}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C, and the end of the terminal, are the ordinary end; whatever is held is restored on the way."""

    def end(*_: object) -> None:
        errors.print("ending")
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        errors.print("ended")


def main() -> int:
    if os.geteuid() != 0:
        errors.print("a lab needs root: namespaces, mounts and user 36 are made for real")
        return FAILED
    try:
        app(prog_name="lab")
    except (HostFailed, TimeoutError) as error:
        errors.print(str(error), style="red", highlight=False, soft_wrap=True)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
