# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage servers: what a host connects before domains are found, one kind of connection in each form."""
