# SPDX-License-Identifier: GPL-2.0-or-later
"""One connection to libvirt, and what hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import libvirt

_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 10, 2


class Listener(Protocol):
    """What hears the events of one connection."""

    # on the event loop: whether what arrives is passed on
    heard: bool

    def register(self, connect: libvirt.virConnect) -> None:
        """In a thread."""

    def end(self) -> None:
        """In a thread; harmless on a connection that broke."""


class Watched:
    """A connection and what hears of it: events, and its close."""

    def __init__(self, connect: libvirt.virConnect, listener: Listener) -> None:
        self.listener = listener
        self._connect = connect
        self._closed = False
        self._has_close_callback = False

    def is_alive(self) -> bool:
        return not self._closed and bool(self._connect.isAlive())

    def watch(self, closed: Callable[[], None]) -> None:
        """``closed`` is called in libvirt's event thread."""

        def on_close(_connect: libvirt.virConnect, _reason: int, _opaque: Any) -> None:
            self._closed = True
            closed()

        try:
            self._connect.registerCloseCallback(on_close, None)
            self._has_close_callback = True
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise  # else a driver in this process: nothing can break
        self.listener.register(self._connect)

    def end(self) -> None:
        self.listener.end()
        if self._has_close_callback:
            with contextlib.suppress(libvirt.libvirtError):  # it broke
                self._connect.unregisterCloseCallback()


def open_connection(uri: str) -> libvirt.virConnect:
    connect = libvirt.open(uri)
    try:
        connect.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise  # else a driver in this process
    return connect
