# SPDX-License-Identifier: GPL-2.0-or-later
"""Days that certificates last, as metric and event."""

import pytest

from vdsm.certificates import keeping
from vdsm.common import metrics
from vdsm.common.events import Events
from vdsm.host.expiry import Expiry


def days_left() -> float:
    line = next(
        line for line in metrics.render().decode().splitlines() if 'certificate_days_left{certificate="vdsm"}' in line
    )
    return float(line.split()[-1])


@pytest.mark.parametrize(("days", "tells"), [(20, True), (40, False)])
async def test_a_certificate_that_ends_soon_is_told_once(tmp_path, days, tells):
    pki = str(tmp_path / "pki")
    keeping.init(pki, ["host"], days=days)
    events = Events()
    heard = events.subscribe("test")
    expiry = Expiry(pki, events)
    await expiry.look()
    assert days_left() == days - 1
    # told once a day only
    await expiry.look()
    keeping.renew(pki, [], days=days)
    await expiry.look()
    heard.close()
    told = [event async for event in heard]
    assert [event.method for event in told] == ["|host|certificate|vdsm"] * tells
    assert all(event.params["days_left"] == days - 1 for event in told)


async def test_a_host_without_certificates_has_nothing_to_tell(tmp_path):
    await Expiry(str(tmp_path), Events()).look()
