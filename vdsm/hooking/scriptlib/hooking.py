# SPDX-License-Identifier: GPL-2.0-or-later
"""What hook scripts import: read and write the document, tell what went wrong, run commands.

    import hooking
    dom = hooking.read_domxml()
    ...
    hooking.write_domxml(dom)

Scripts run under the system's Python, so this file uses the standard library only and works from
Python 3.6 on. Its names and their behaviour are a contract with scripts that were written for VDSM; that is
why some of them are not what one would choose today.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import types
import urllib.parse  # noqa: F401  scripts use it after a bare "import urllib"
from xml.dom import minidom

RUN_DIRECTORY = "/run/vdsm"

_ENCODING = "utf-8"
# variables that hold the name of the document's file
_XML_FILE = "_hook_domxml"
_JSON_FILE = "_hook_json"


def read_domxml():
    """The XML that the script was given, as a minidom Document."""
    with io.open(os.environ[_XML_FILE], encoding=_ENCODING) as f:
        return minidom.parseString(f.read().encode(_ENCODING))


def write_domxml(dom):
    """Hand on a changed XML: a minidom Document or any of its nodes."""
    with io.open(os.environ[_XML_FILE], "wb") as f:
        f.write(dom.toxml(encoding=_ENCODING))


def read_json():
    """The data that the script was given."""
    with io.open(os.environ[_JSON_FILE], encoding=_ENCODING) as f:
        return json.loads(f.read())


def write_json(data):
    """Hand on changed data."""
    with io.open(os.environ[_JSON_FILE], "w", encoding=_ENCODING) as f:
        f.write(json.dumps(data))


def log(message):
    """A line for the agent's log and the trace."""
    sys.stderr.write(message + "\n")


def exit_hook(message, return_code=2):
    """End the script: 0 is success, 1 lets the next scripts run, 2 does not."""
    log(message)
    sys.exit(return_code)


def tobool(s):
    """Text of a custom property as a truth value; what can't be read is False."""
    if s is None:
        return False
    if isinstance(s, bool):
        return s
    if str(s).lower() == "true":
        return True
    try:
        return bool(int(s))
    except (TypeError, ValueError):
        return False


def load_vm_launch_flags_from_file(vm_id):
    """Flags with which libvirt is going to start the VM (1: paused)."""
    try:
        with io.open(_launch_flags_path(vm_id), encoding=_ENCODING) as f:
            return int(f.read())
    except FileNotFoundError:
        return 0


def dump_vm_launch_flags_to_file(vm_id, flags):
    """Change the flags with which libvirt is going to start the VM; for before_vm_start scripts."""
    path = _launch_flags_path(vm_id)
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # the agent must never read half a number
    fd, temporary = tempfile.mkstemp(prefix=".launchflags.", dir=folder)
    try:
        with io.open(fd, "w", encoding=_ENCODING) as f:
            f.write(str(int(flags)))
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def execCmd(
    command,
    sudo=False,
    cwd=None,
    data=None,
    raw=False,
    printable=None,
    env=None,
    nice=None,
    ioclass=None,
    ioclassdata=None,
    setsid=False,
    execCmdLogger=None,
    resetCpuAffinity=True,
):
    """Run a command: (exit code, stdout, stderr), lists of lines in bytes, or whole bytes with ``raw``.

    ``sudo`` asks for no password, so the script's package brings the sudo rule. ``printable`` replaces the
    command in messages.
    """
    argv = [_text(part) for part in command]
    if ioclass is not None:
        level = [] if ioclassdata is None else ["-n", str(ioclassdata)]
        argv = ["ionice", "-c", str(ioclass), *level, *argv]
    if nice is not None:
        argv = ["nice", "-n", str(nice), *argv]
    if setsid:
        argv = ["setsid", *argv]
    if sudo and os.geteuid() != 0:
        argv = ["sudo", "-n", *argv]
    if resetCpuAffinity:
        _use_all_cpus()
    if execCmdLogger is not None:
        shown = printable if printable is not None else argv
        execCmdLogger.debug("%s (cwd %s)", shown, cwd)
    if data is not None and not isinstance(data, bytes):
        data = data.encode(_ENCODING)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=env,
        close_fds=True,
    )
    out, err = process.communicate(data)
    if not raw:
        out, err = out.splitlines(False), err.splitlines(False)
    return process.returncode, out, err


def _text(part):
    return part if isinstance(part, (str, bytes)) else str(part)


def _launch_flags_path(vm_id):
    return os.path.join(RUN_DIRECTORY, vm_id, "launchflags")


def _use_all_cpus():
    """The agent may be bound to some CPUs; what a hook starts need not be."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


# older scripts reach these through the runner's own module
hooks = types.SimpleNamespace(
    load_vm_launch_flags_from_file=load_vm_launch_flags_from_file,
    dump_vm_launch_flags_to_file=dump_vm_launch_flags_to_file,
)
