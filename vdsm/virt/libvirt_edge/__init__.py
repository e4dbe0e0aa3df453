# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt behind a small typed edge: nothing outside this package imports libvirt."""
