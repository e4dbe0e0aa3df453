# SPDX-License-Identifier: GPL-2.0-or-later
"""Micro-VM hosts: hypervisors with a kernel of their own, for what this machine's kernel lacks or must not be given.

Device-mapper, iSCSI, NFS, bonds, a watchdog that resets, AppArmor, KVM: each needs a kernel that a test may break.
A micro-VM boots the distribution's kernel over this machine's own root file system (read-only, memory above), so that
what is installed here runs there. See docs/lab.md.
"""
