# SPDX-License-Identifier: GPL-2.0-or-later
"""From bytes on a connection to a call of the API, and back; events the other way."""
