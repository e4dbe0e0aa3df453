# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain XML that takes long to read: others are served meanwhile."""

from __future__ import annotations

import threading

import pytest

from vdsm.virt import accept
from vdsm.virt.domain_xml.description import Description

from .fakes import FACTS, VM, xml_of


@pytest.mark.parametrize(("interfaces", "on_the_loop"), [(2, True), (20_000, False)])
async def test_a_long_text_is_read_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, interfaces: int, on_the_loop: bool
) -> None:
    readers = []

    def describe(root: object) -> Description:
        readers.append(threading.current_thread())
        return real(root)  # type: ignore[arg-type]

    real = accept.describe
    monkeypatch.setattr(accept, "describe", describe)
    description, _ = await accept.read(xml_of(devices="<interface type='user'/>" * interfaces), FACTS)
    assert (description.vm_id, len(description.interfaces)) == (VM, interfaces)
    assert [reader is threading.main_thread() for reader in readers] == [on_the_loop]
