# SPDX-License-Identifier: GPL-2.0-or-later
pytest_plugins = ["tests.failure_logs", "tests.ids"]
