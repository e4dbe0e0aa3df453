# SPDX-License-Identifier: GPL-2.0-or-later
"""`vdsm storage`: what a person asks about the storage of this host, each question a module.

All but `connections` ask the agent. Nothing here touches storage: it may hang.
"""
