# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that the engine hands over: its domain XML is read and refused before anything of it is begun."""

from __future__ import annotations

import asyncio

from vdsm.common.errors import InvalidParameter
from vdsm.common.xml import InvalidXml, hide_secrets, parse, to_text
from vdsm.virt.domain_xml.description import Description, describe
from vdsm.virt.domain_xml.errors import BadDomainXml
from vdsm.virt.domain_xml.placeholders import HostFacts
from vdsm.virt.records import Phase, Record
from vdsm.virt.startup import adapt

_LARGE_XML = 1 << 16  # takes a while to read, up to a quarter of a second, and the loop has others to serve


async def read(xml: str, facts: HostFacts) -> tuple[Description, str]:
    """What it describes, and the XML as it may be kept and shown: fitted to this host, without secrets.

    Raises `InvalidParameter`, named xml.
    """
    return await asyncio.to_thread(_read, xml, facts) if len(xml) > _LARGE_XML else _read(xml, facts)


def record(description: Description, xml: str, left: Record | None) -> Record:
    """The first record, with the images that an earlier run of this VM could not give back."""
    wanted = [drive.image for drive in description.drives if drive.image is not None]
    images = tuple(dict.fromkeys([*wanted, *(left.images if left else ())]))
    return Record(vm_id=description.vm_id, name=description.name, phase=Phase.STARTING, xml=xml, images=images)


def _read(xml: str, facts: HostFacts) -> tuple[Description, str]:
    try:
        root = parse(xml, what="it")
        description = describe(root)
        adapt(root, facts)  # refuses what could only fail later
    except (InvalidXml, BadDomainXml, InvalidParameter) as e:
        raise InvalidParameter("xml", f"{len(xml)} characters", str(e)) from e
    hide_secrets(root)
    return description, to_text(root)
