# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the source that no ready-made tool does, and one command that runs all checks."""
