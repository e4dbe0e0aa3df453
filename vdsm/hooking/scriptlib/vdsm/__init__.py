# SPDX-License-Identifier: GPL-2.0-or-later
"""For scripts that say ``from vdsm.hook import hooking``. This is not the agent: it runs under another Python.

Where the system has a package of this name, the rest of it stays importable.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
