# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m vdsm.certificates FOLDER``: reports on the certificates there, as JSON. The agent asks this."""

from __future__ import annotations

import sys

import msgspec

from vdsm.certificates import places
from vdsm.certificates.examine import examine


def main() -> None:
    reports = [examine(place) for place in places.known(sys.argv[1]) if place.exists()]
    sys.stdout.buffer.write(msgspec.json.encode(reports))


if __name__ == "__main__":
    main()
