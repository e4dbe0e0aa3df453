# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage-guided fuzzing of all that runs on bytes from outside before a verb does."""
