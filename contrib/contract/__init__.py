# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes vdsm/api/contract.json from a schema of the field and our overrides."""
