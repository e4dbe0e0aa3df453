# SPDX-License-Identifier: GPL-2.0-or-later
"""File domains: storage on a mounted file system."""
