# SPDX-License-Identifier: GPL-2.0-or-later
"""The file by which hooks change how libvirt starts a VM (hooks.md §3).

`/run/vdsm/<vm id>/launchflags` holds one decimal number. The agent writes it before the hooks, reads
it after before_vm_start, and removes it after after_vm_start; the folder stays as long as the VM.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

from vdsm.common.atomic import write_atomic
from vdsm.common.errors import AgentError

START_PAUSED = 1

_MAX_FLAGS = 1 << 16


class BadLaunchFlags(AgentError):
    path: str
    content: str
    msg = "A hook left {self.content!r} in {self.path}: expected one decimal number"


class LaunchFlags:
    def __init__(self, run_folder: str, vm_id: str) -> None:
        self._folder = os.path.join(run_folder, vm_id)
        self._path = os.path.join(self._folder, "launchflags")

    def write(self, flags: int) -> None:
        os.makedirs(self._folder, mode=0o755, exist_ok=True)
        write_atomic(self._path, str(flags).encode())

    def read(self) -> int:
        """The flags as the hooks left them; 0 when a hook removed the file."""
        try:
            # not blocking: a hook may have left a pipe, and nothing of the agent would go on
            with open(self._path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BadLaunchFlags(self._path, "no regular file")
                content = file.read(64)
        except FileNotFoundError:
            return 0
        except OSError as e:
            raise BadLaunchFlags(self._path, e.strerror or str(e)) from e
        text = content.strip()
        if not text.isdigit() or int(text) >= _MAX_FLAGS:
            raise BadLaunchFlags(self._path, content.decode("utf-8", "replace"))
        return int(text)

    def remove(self) -> None:
        with contextlib.suppress(OSError):  # what stays is written anew by the next start
            os.unlink(self._path)

    def remove_folder(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
