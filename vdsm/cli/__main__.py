# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m vdsm.cli``."""

from vdsm.cli.main import run

if __name__ == "__main__":
    run()
