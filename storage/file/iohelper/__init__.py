# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that touches a shared mount: ``python3 -I -S <this folder>/__main__.py``.

It may hang with its mount and then be abandoned, so it holds no state: each request on stdin is
one operation on named paths, each answer on stdout its result or errno. Requests are served one
after the other; the end of stdin ends it. Standard library only, and little of it: there is one
such process for each mount in use.

Paths are those of the caller, which runs as the same user: this process narrows nothing.
"""
