# SPDX-License-Identifier: GPL-2.0-or-later
"""Where sanlock listens. Known without its binding, which is loaded when it is needed."""

from __future__ import annotations

import os


def socket_path() -> str:
    return os.path.join(os.environ.get("SANLOCK_RUN_DIR", "/run/sanlock"), "sanlock.sock")
