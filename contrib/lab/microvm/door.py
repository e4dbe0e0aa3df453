# SPDX-License-Identifier: GPL-2.0-or-later
"""The inner end of a micro-VM's `channel`: connects what the keeper opens to sockets of the micro-VM."""

from __future__ import annotations

import os
import sys

from contrib.lab.microvm.channel import Channel

if __name__ == "__main__":
    Channel(os.open(sys.argv[1], os.O_RDWR | os.O_CLOEXEC), {}).serve()
