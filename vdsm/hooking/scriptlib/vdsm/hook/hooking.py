# SPDX-License-Identifier: GPL-2.0-or-later
"""The module ``hooking`` under its older name: one module, whichever name a script uses."""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import hooking

sys.modules[__name__] = hooking
