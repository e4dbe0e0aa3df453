# SPDX-License-Identifier: GPL-2.0-or-later
"""Statistics of running VMs: one bulk call for all, rates from two samples."""
