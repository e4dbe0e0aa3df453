# SPDX-License-Identifier: GPL-2.0-or-later
"""The SPM role as a process of its own: whoever takes its lease away ends this process only."""
