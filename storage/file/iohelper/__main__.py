# SPDX-License-Identifier: GPL-2.0-or-later
"""``__main__.py <descriptor of a socket>``: of an environment only our own packages are on the path, and these last."""

import os
import socket
import sys

sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "..")))

from storage.file.iohelper.nursery import main

main(socket.socket(fileno=int(sys.argv[1])))
