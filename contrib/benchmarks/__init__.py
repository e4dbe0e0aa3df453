# SPDX-License-Identifier: GPL-2.0-or-later
"""Measurements of the whole agent on a private host: ``python -m contrib.benchmarks``."""
