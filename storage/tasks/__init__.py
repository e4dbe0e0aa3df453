# SPDX-License-Identifier: GPL-2.0-or-later
"""SPM tasks: long work whose intent lies on the master domain, so that any host can undo it."""
