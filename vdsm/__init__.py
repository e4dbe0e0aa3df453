# SPDX-License-Identifier: GPL-2.0-or-later

from vdsm.version import VERSION as __version__

__all__ = ["__version__"]
