# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's own event loop in one dedicated daemonic thread.

It must be registered before the first connection is opened, once per process, and keeps running:
keep-alive and every event of every connection pass through it. Callbacks do nothing there but
hand over to asyncio.
"""

from __future__ import annotations

import logging
import threading
import time

import libvirt

log = logging.getLogger("vdsm.virt.libvirt")

_PAUSE_S = 0.5
_lock = threading.Lock()
_running = False


def ensure_event_loop() -> None:
    global _running  # noqa: PLW0603 - libvirt's registration is global to the process as well
    with _lock:
        if _running:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors arrive as exceptions
        libvirt.virEventRegisterDefaultImpl()
        # a timer that never ends keeps the loop from spinning while nothing else is registered
        libvirt.virEventAddTimeout(3_600_000, lambda _timer, _opaque: None, None)
        threading.Thread(target=_run, name="libvirt/events", daemon=True).start()
        _running = True


def _run() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as e:
            log.error("libvirt's event loop: %s", e)
            time.sleep(_PAUSE_S)  # whatever it is, it may last
