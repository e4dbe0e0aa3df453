# SPDX-License-Identifier: GPL-2.0-or-later
"""Which version this is.

Not in the package's own file: a hook script that runs ``vdsm`` has the script library on its path, and with it another
file of that name, see `vdsm.hooking.scriptlib`.
"""

VERSION = "0.1.0"
