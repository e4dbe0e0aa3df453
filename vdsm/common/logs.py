# SPDX-License-Identifier: GPL-2.0-or-later
"""Logging that never blocks the loop, with the flow's id in every line.

Records go into a queue; one thread writes them to stderr (the journal, under systemd) or to a
file. A full queue drops records and counts them: a slow disk must not stop a host agent.

What came from outside may stand in a message or a traceback: line breaks in it are indented and other control
characters escaped, so that none can pass for a line of its own. Secrets in it are hidden (`vdsm.common.masking`).

The flow id is a context variable: it follows tasks by itself; threads are started with
`contextvars.copy_context` where the id must follow.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import logging
import logging.handlers
import queue
import re
import sys
from collections.abc import Iterator

from vdsm.common import masking

flow_id: contextvars.ContextVar[str] = contextvars.ContextVar("flow_id", default="")

MAX_QUEUED = 20_000
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
_CONTROL |= {ord("\n"): "\n    ", 0x2028: "\\u2028", 0x2029: "\\u2029"}
AUDIT = "vdsm.audit"
_LIKE_OURS = re.compile(r"\n(?=\d)")
FORMAT = "%(asctime)s %(levelname)-7s %(name)s %(flow)s%(message)s"


@contextlib.contextmanager
def flow(identifier: str) -> Iterator[None]:
    """Everything logged in the body (and in tasks started there) carries this flow id."""
    token = flow_id.set(identifier)
    try:
        yield
    finally:
        flow_id.reset(token)


class _Enqueue(logging.handlers.QueueHandler):
    """Stamps the flow id in the caller's context; drops instead of waiting when the queue is full."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        identifier = flow_id.get()
        record = copy.copy(record)
        record.flow = f"[{identifier.translate(_CONTROL)}] " if identifier else ""
        record.msg, record.args = record.getMessage().translate(_CONTROL), None
        prepared: logging.LogRecord = super().prepare(record)
        # who calls an audited verb must not choose which words of its line are hidden: it has ids, names and a result
        hide = masking.hide_by_form if record.name == AUDIT else masking.hide
        # with the traceback by now, whose lines are left alone where they can't be taken for ours
        prepared.msg = prepared.message = _LIKE_OURS.sub("\n    ", hide(str(prepared.msg)))
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class Logs:
    """The running logging of a process; `stop` flushes it."""

    def __init__(self, level: str = "INFO", path: str | None = None) -> None:
        records: queue.Queue[logging.LogRecord] = queue.Queue(MAX_QUEUED)
        output: logging.Handler = (
            logging.handlers.WatchedFileHandler(path) if path else logging.StreamHandler(sys.stderr)
        )
        output.setFormatter(logging.Formatter(FORMAT, defaults={"flow": ""}))
        self._enqueue = _Enqueue(records)
        self._listener = logging.handlers.QueueListener(records, output)
        root = logging.getLogger()
        root.handlers[:] = [self._enqueue]
        root.setLevel(level)
        self._listener.start()

    @property
    def dropped(self) -> int:
        return self._enqueue.dropped

    def stop(self) -> None:
        logging.getLogger().removeHandler(self._enqueue)
        self._listener.stop()


def setup(level: str = "INFO", path: str | None = None) -> Logs:
    return Logs(level, path)
