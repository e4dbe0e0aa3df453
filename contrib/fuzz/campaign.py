# SPDX-License-Identifier: GPL-2.0-or-later
"""One target under the fuzzer, in a process of its own: ``python -m contrib.fuzz.campaign TARGET FOLDER OPTION...``

A finding does not end it: the smallest input for each place that raises is kept in FOLDER/crashes, and the fuzzer goes
on. What ends the process itself (a hang, too much memory, a crash of the interpreter) is kept there by the fuzzer.
"""

from __future__ import annotations

import hashlib
import random
import re
import sys
import traceback
from pathlib import Path

from contrib.fuzz.target import Target, load

# of the changes, how many are made by the fuzzer without knowledge of the input's form
PLAIN = 0.4
INSTRUMENTED = ("vdsm", "jsonrpcserver", "oslash")


def main(name: str, folder: Path, options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        target = load(name)
    for seed in target.seeds():
        (folder / "corpus" / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    tokens = folder / "tokens"
    tokens.write_text("".join(f'"{_quoted(token)}"\n' for token in target.tokens))
    argv = [
        sys.argv[0],
        f"-max_len={target.max_bytes}",
        f"-dict={tokens}",
        f"-artifact_prefix={folder}/crashes/",
        "-len_control=0",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        *options,
        str(folder / "corpus"),
    ]

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if target.mutate is not None and rng.random() >= PLAIN:
            made = target.mutate(data, rng)
            if len(made) <= max_size:
                return made
        return bytes(atheris.Mutate(data, max_size))

    found = Findings(target, folder / "crashes")
    if target.mutate is None:
        atheris.Setup(argv, found.run)
    else:
        atheris.Setup(argv, found.run, custom_mutator=mutate)
    atheris.Fuzz()


class Findings:
    """Runs the target; keeps the smallest input for each place that raises."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._folder = folder

    def run(self, data: bytes) -> None:
        try:
            self._target.run(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding, and kept
            self._keep(data, error)

    def _keep(self, data: bytes, error: Exception) -> None:
        name = place(error)
        file = self._folder / name
        if not file.exists() or len(data) < file.stat().st_size:
            file.write_bytes(data)
            told = "".join(traceback.format_exception(error, limit=-12))
            file.with_name(f"{name}.txt").write_text(told)


def place(error: Exception) -> str:
    """One name for all inputs that fail alike."""
    kind = type(error).__name__
    if isinstance(error, RecursionError):  # it may be anywhere
        return kind
    last = traceback.extract_tb(error.__traceback__)[-1]
    return re.sub(r"[^\w.-]", "_", f"{kind}-{Path(last.filename).name}-{last.lineno}")


def _quoted(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
