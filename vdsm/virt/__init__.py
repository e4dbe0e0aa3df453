# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs: one owner per VM, libvirt behind an edge, the domain XML as the source of truth."""
