# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo: the agent on a private host, driven through its API only, from nothing to a VM and back."""
