# SPDX-License-Identifier: GPL-2.0-or-later
"""The `vdsm` command line: a client of the agent's unix socket, and the way to start the agent."""
