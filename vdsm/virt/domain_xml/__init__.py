# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and editing of domain XML: pure functions over lxml trees, no libvirt, no files."""
