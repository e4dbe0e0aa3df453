# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of all unit tests."""

from hypothesis import settings

# An example's time says nothing on a machine that runs other things too.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
