# SPDX-License-Identifier: GPL-2.0-or-later
"""Test hosts: whole hosts in namespaces of this machine, and what their guests boot.

The machine itself is only read: a host's root is an overlay whose upper layer is memory, its network, processes,
mounts and cgroups are its own. See docs/lab.md.
"""
