# SPDX-License-Identifier: GPL-2.0-or-later
"""A reader of whole file domains, written from the format's description alone.

It shares no code with the agent (a test sees to that), so a mistake in the agent's codecs is not repeated here.
"""
