# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that touch shared mounts: ``python3 -I -S <this folder>/__main__.py``.

One bears the helpers (`nursery`). A helper may hang with its mount and then be abandoned, so it holds no state: each
request is one operation on named paths, each answer its result or errno. Requests are served one after the
other. Standard library only, and little of it.

Paths are those of the caller, which runs as the same user: these processes narrow nothing.
"""
