# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host is, has and does: capabilities, statistics, hardware."""
