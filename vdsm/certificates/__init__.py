# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's certificates: where they lie, whether they serve, how they are made and replaced.

Only `examine` and `making` load the cryptography library, and only commands load them: 17 MiB that the agent does not
carry. What the agent has to know of dates it asks ``python -m vdsm.certificates``.
"""
