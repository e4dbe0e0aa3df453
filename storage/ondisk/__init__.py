# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure codecs of everything that is written on shared storage. No I/O, no state."""
