# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the helper begins: nothing of an environment is on its path but our own packages, and these come last."""

import os
import sys

sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "..")))

from storage.file.iohelper.serving import main

main()
