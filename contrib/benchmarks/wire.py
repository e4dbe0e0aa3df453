# SPDX-License-Identifier: GPL-2.0-or-later
"""The price of the wire: the engine's port alone (STOMP in TLS), in calls a second, CPU a call and memory.

    python -m contrib.benchmarks wire
    python -m contrib.benchmarks.wire [CHECKOUT]

With another CHECKOUT of this repository both are measured in turns, by the same client, so that their ratio holds on a
machine that does other things, too. The best of `ROUNDS` counts: other load only ever takes away.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contrib.benchmarks import report
from contrib.benchmarks.report import Row, Table
from contrib.lab.authority import Authority, Identity

if TYPE_CHECKING:
    from contrib.lab.host import PrivateHost

HERE = Path(__file__).resolve().parents[2]
ROUNDS = 3
SECONDS = 2.0
# verb, connections, calls at once on each
LOADS = (
    ("Host.ping2", 1, 1),
    ("Host.ping2", 1, 8),
    ("Host.ping2", 8, 1),
    ("Host.ping2", 50, 1),
    ("Bench.50KB", 8, 1),
    ("Bench.1600KB", 4, 1),
)
IDLE = (0, 50, 500)
SETTLE_S = 4.0
CLIENTS = 5  # one certificate has a share of the port's connections
IDLE_CLIENT = """
import asyncio, sys
from vdsm.client import tls
async def main(port, each, pkis):
    kept = []
    for pki in pkis:
        context = tls.context(tls.own(pki))
        for _ in range(each):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"CONNECT\\naccept-version:1.2\\n\\n\\0")
            await reader.readuntil(b"\\0")
            kept.append(writer)
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for writer in kept:
        writer.close()
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
"""


@dataclass
class Best:
    rate: float = 0.0
    cpu_us: float = 1e9


def run(host: PrivateHost) -> list[Table]:
    """The host is not used: what is measured is the port alone."""
    return measure([HERE])


def measure(checkouts: list[Path]) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        pkis = _pkis(Path(folder))
        best = {(checkout, load): Best() for checkout in checkouts for load in LOADS}
        for _ in range(ROUNDS):
            for load in LOADS:
                for checkout in checkouts:
                    with _port(checkout, pkis[0]) as server:
                        _loaded(server, pkis[0], load, best[checkout, load])
        memory = {checkout: _memory(checkout, pkis) for checkout in checkouts}
    return [_rates(checkouts, best), _idle(checkouts, memory)]


def _rates(checkouts: list[Path], best: dict[tuple[Path, tuple[str, int, int]], Best]) -> Table:
    rows: list[Row] = []
    for load in LOADS:
        found = [best[checkout, load] for checkout in checkouts]
        cells = [f"{one.rate:.0f}" for one in found] + [f"{one.cpu_us:.0f}" for one in found]
        if len(found) > 1:
            cells += [f"{found[0].rate / found[1].rate:.2f}", f"{found[1].cpu_us / found[0].cpu_us:.2f}"]
        rows.append((load[0], str(load[1]), str(load[2]), *cells))
    names = _names(checkouts)
    columns = ["verb", "connections", "at once", *(f"calls/s {name}".strip() for name in names)]
    columns += [f"CPU µs a call {name}".strip() for name in names]
    columns += ["times as many", "CPU, times less"] if len(names) > 1 else []
    note = (
        f"STOMP in TLS, the port alone without a host. The best of {ROUNDS} runs of {SECONDS:g} s; the client is a "
        "process of its own on the same machine, and takes the same time for either."
    )
    return Table("The wire", columns, rows, note)


def _idle(checkouts: list[Path], memory: dict[Path, list[float]]) -> Table:
    rows = []
    for place, state in enumerate((*(f"{count} idle connections" for count in IDLE), "two waves of 500, closed")):
        rows.append((state, *(f"{memory[checkout][place]:.1f}" for checkout in checkouts)))
    note = "Anonymous memory of the process, with cyclic garbage collection off: what stays is not garbage that waits."
    return Table(
        "Memory of idle TLS connections", ("state", *(f"MiB {n}".strip() for n in _names(checkouts))), rows, note
    )


def _names(checkouts: list[Path]) -> list[str]:
    return ["", *("before" for _ in checkouts[1:])]


def _pkis(folder: Path) -> list[Path]:
    """The port's own pair, which is the first client's, too, and further clients'."""
    authority = Authority(folder)
    return [_laid_out(folder / f"pki{number}", authority.issue(f"bench{number}")) for number in range(CLIENTS)]


def _laid_out(folder: Path, identity: Identity) -> Path:
    for source, name in (
        (identity.ca, "certs/cacert.pem"),
        (identity.certificate, "certs/vdsmcert.pem"),
        (identity.key, "keys/vdsmkey.pem"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
    return folder


@dataclass
class Server:
    pid: int
    port: int

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def own_mib(self) -> float:
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Anonymous:"):
                return int(line.split()[1]) / 1024
        return 0.0


@contextlib.contextmanager
def _port(checkout: Path, pki: Path, *flags: str) -> Iterator[Server]:
    argv = [sys.executable, str(HERE / "contrib/benchmarks/bare.py"), str(pki), *flags]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(checkout)}, cwd="/"
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(process.pid, int(process.stdout.readline()))
        finally:
            process.kill()


def _loaded(server: Server, pki: Path, load: tuple[str, int, int], best: Best) -> None:
    verb, connections, at_once = load
    argv = [sys.executable, "-m", "contrib.benchmarks.load", "stomp", f"127.0.0.1:{server.port}"]
    before = server.cpu_s
    told = subprocess.run(
        [*argv, str(connections), str(SECONDS), str(pki), verb, str(at_once)],
        check=True,
        capture_output=True,
        cwd=HERE,
        timeout=60,
    )
    figures = json.loads(told.stdout)
    if figures["errors"]:
        raise RuntimeError(f"{verb}: {figures['errors']} calls failed")
    # its warm-up asks, too
    calls = figures["all"]
    best.rate = max(best.rate, figures["requests"] / figures["seconds"])
    best.cpu_us = min(best.cpu_us, 1e6 * (server.cpu_s - before) / calls)


def _memory(checkout: Path, pkis: list[Path]) -> list[float]:
    found = []
    with _port(checkout, pkis[0], "--no-gc") as server:
        for count in IDLE:
            with _idle_connections(server, count, pkis):
                found.append(server.own_mib)
        with _idle_connections(server, IDLE[-1], pkis):
            pass
        time.sleep(SETTLE_S)
        found.append(server.own_mib)
    return found


@contextlib.contextmanager
def _idle_connections(server: Server, count: int, pkis: list[Path]) -> Iterator[None]:
    if not count:
        yield
        return
    argv = [sys.executable, "-c", IDLE_CLIENT, str(server.port), str(count // len(pkis)), *map(str, pkis)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=HERE) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        if client.stdout.readline() != b"open\n":
            raise RuntimeError(f"{count} connections could not be opened")
        yield
        client.stdin.close()
        client.wait(60)


def main() -> None:
    checkouts = [HERE, *(Path(other).resolve() for other in sys.argv[1:])]
    for table in measure(checkouts):
        print(report.as_markdown(table), flush=True)
    print(report.machine())


if __name__ == "__main__":
    main()
