# SPDX-License-Identifier: GPL-2.0-or-later
"""Hook scripts: executables in directories named after a point, run by the agent at that point."""
