# SPDX-License-Identifier: GPL-2.0-or-later
"""The border: wire names, wire types, numeric codes and roles live here and nowhere below."""
