# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's user against the root helper: ``python -m tests.hosts.attack FOLDER SECONDS``, as root.

A helper with folders of its own runs in namespaces of its own. Meanwhile user 36 exchanges, renames, removes and
replaces all that the helper touches (renameat2 with RENAME_EXCHANGE), and calls its verbs with specifications, ids and
paths of its choice; one of them is a file system that holds a false sudoers. The helper is killed and started again
and again, every other time on a host that VDSM had, where the repository and mnt are user 36's.

Who judges looks at what must not have changed: a folder of root's, its content and owner, what is mounted where and
how, and that nothing outside of user 36's folders became its own. Prints what was tried and what was gained as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from contrib.lab.spec import CHECKOUT
from storage.ondisk.remote_path import mount_name

AGENT = 36
POOL = "5ccbb0f4-7b0c-4b93-9b58-5a5c0e4c8f5f"
TRUE, FALSE = "root ALL=(ALL) ALL\n", "vdsm ALL=(ALL) NOPASSWD: ALL\n"
ROUND_S = 1.0
LEAST_STARTS = 4
STOP_S = 5.0

HELPER = """
import sys
from vdsm.common import logs, starts
from vdsm.common.paths import Paths
from vdsm.root.server import __main__ as root, folders
from vdsm.root.server.registry import Helper
top = sys.argv[1]
paths = Paths(repository=top + "/rhev/data-center", run=top + "/run/vdsm", state=top + "/lib/vdsm",
              log=top + "/log/vdsm", root_state=top + "/lib/vdsm-root", root_run=top + "/run/vdsm-root",
              hooks=top + "/hooks", pki=top + "/pki/vdsm", etc=top + "/etc")
running = logs.setup("INFO")
folders.prepare_own(paths)
starts.run(root.serve(Helper(paths, 36, 36)))
running.stop()
"""

EXCHANGES = r"""
import ctypes, json, os, random, sys
top, seed, places = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
libc, now = ctypes.CDLL(None), random.Random(seed)
free = top + "/free"
AT, EXCHANGE = -100, 2
# one who aims at a single place makes it a link and a folder in turns
aimed = len(places) == 1

def ours():
    name = f"{free}/{seed}.{now.randrange(8)}"
    kind = 0 if aimed else now.randrange(4)
    try:
        if kind == 0: os.symlink(top + "/etc", name)
        elif kind == 1: os.symlink(top + "/etc/sudoers", name)
        elif kind == 2: os.mkdir(name, 0o777)
        else: open(name, "w").write('{"spec": "/evil", "vfs_type": "ext4", "options": ["suid"]}')
    except OSError: pass
    return name

done = {"exchanges tried": 0, "exchanges done": 0}
while os.getppid() != 1:
    place, mine = now.choice(places), ours()
    what = 0 if aimed else now.randrange(6)
    done["exchanges tried"] += 1
    try:
        if what < 3:
            if libc.renameat2(AT, place.encode(), AT, mine.encode(), EXCHANGE):
                if aimed: os.mkdir(place, 0o777)
                continue
        elif what == 3: os.rename(mine, place)
        elif what == 4: os.rename(place, mine)
        else: os.unlink(place)
        done["exchanges done"] += 1
    except OSError: pass
    if done["exchanges tried"] % 512 == 0:
        with open(f"{top}/counts/{seed}.new", "w") as f: json.dump(done, f)
        os.replace(f"{top}/counts/{seed}.new", f"{top}/counts/{seed}")
"""

CALLS = r"""
import json, os, random, socket, struct, sys
top, seed, pool, image = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
now = random.Random(seed)
def name(path): return path.replace("_", "__").replace("/", "_")
ids = [name(image), name(top + "/etc"), pool, "..", "../etc", "mnt", "mnt/" + pool, name("/dev/null"), "a" * 300]
paths = [image, top + "/etc", top + "/free/x", top + "/rhev/data-center/mnt", "/etc", "srv:/x", "/../etc", "/proc"]
options = ["loop", "loop,suid", "bind", "loop,ro", "", "logdev=/dev/sda", "password=x", "credentials=/etc/shadow",
           "loop,dev", "remount", "x-mount.mkdir", "user", "loop,exec"]
def call():
    return now.choice([
        ("Mount.define", {"spec": now.choice(paths), "vfs_type": now.choice(["ext4", "ext4", "cifs", "proc", "fuse"]),
                          "options": now.choice(options)}),
        ("Mount.define", {"spec": image, "vfs_type": "ext4", "options": "loop"}),
        ("Mount.mount", {"mount_id": name(image)}),
        ("Mount.mount", {"mount_id": now.choice(ids)}),
        ("Mount.unmount", {"mount_id": now.choice(ids)}),
        ("Mount.unmount_forced", {"mount_id": now.choice(ids)}),
        ("LocalFolder.link", {"folder": now.choice(paths)}),
        ("LocalFolder.unlink", {"folder": now.choice(paths)}),
        ("Pool.make_folder", {"pool_id": now.choice(ids)}),
        ("Pool.remove_folder", {"pool_id": now.choice(ids)}),
        ("Hooks.run", {"point": now.choice(["before_vdsm_start", "before_vm_start"]), "text": "", "timeout_s": 1}),
    ])
done = {"calls granted": 0, "calls refused": 0}
def exactly(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part: raise OSError
        data += part
    return data
while os.getppid() != 1:
    try:
        s = socket.socket(socket.AF_UNIX); s.settimeout(30); s.connect(top + "/run/vdsm-root/root.sock")
        while True:
            verb, params = call()
            body = json.dumps({"id": 1, "call": verb, "params": params}).encode()
            s.sendall(struct.pack(">I", len(body)) + body)
            answer = json.loads(exactly(s, struct.unpack(">I", exactly(s, 4))[0]))
            done["calls refused" if "error" in answer else "calls granted"] += 1
            with open(f"{top}/counts/{seed}.new", "w") as f: json.dump(done, f)
            os.replace(f"{top}/counts/{seed}.new", f"{top}/counts/{seed}")
    except (OSError, ValueError): pass
    finally: s.close()
"""


class Ground:
    def __init__(self, top: str) -> None:
        self.top = top
        self.etc = f"{top}/etc"
        self.free = f"{top}/free"
        self.counts = f"{top}/counts"
        self.repository = f"{top}/rhev/data-center"
        self.mounts = f"{self.repository}/mnt"
        self.image = f"{top}/evil.img"
        self.socket = f"{top}/run/vdsm-root/root.sock"
        for folder in (self.etc, self.free, self.counts, f"{top}/pki/vdsm", f"{top}/hooks"):
            os.makedirs(folder)
        os.chmod(top, 0o755)
        Path(self.etc, "sudoers").write_text(TRUE)
        os.chmod(f"{self.etc}/sudoers", 0o440)
        for folder in (self.free, self.counts, f"{top}/pki/vdsm"):
            os.chown(folder, AGENT, AGENT)
        self._make_image()

    def _make_image(self) -> None:
        content = f"{self.top}/content"
        os.mkdir(content, 0o777)
        Path(content, "sudoers").write_text(FALSE)
        make = ["mkfs.ext4", "-q", "-F", "-d", content, "-E", f"root_owner={AGENT}:{AGENT}", self.image, "8M"]
        subprocess.run(make, check=True, capture_output=True)
        shutil.rmtree(content)
        os.chown(self.image, AGENT, AGENT)

    @property
    def places(self) -> list[str]:
        """What the helper touches."""
        own, state, mount = f"{self.top}/run/vdsm-root", f"{self.top}/lib/vdsm-root", mount_name(self.image)
        agents = [f"{self.top}/{name}" for name in ("run/vdsm", "log/vdsm", "pki/vdsm", "lib/vdsm/vms", "lib/vdsm")]
        roots = [own, f"{own}/staging", f"{own}/root.sock", f"{own}/helper.lock", f"{own}/commands", state]
        records = [f"{state}/mounts", f"{state}/mounts/{mount}.json", f"{state}/network/journal"]
        # most often where user 36 had its way
        mnt = [self.mounts, f"{self.mounts}/{mount}", f"{self.repository}/{POOL}"] * 6
        return [
            *mnt,
            *[self.mounts] * 12,
            self.repository,
            *agents,
            *roots,
            *records,
            f"{self.top}/run/vdsm/agent.lock",
            self.etc,
        ]

    @property
    def agents(self) -> list[str]:
        """Folders of user 36's, also under the name that they have until they are given away."""
        state = [f"lib/vdsm/{name}" for name in ("vms", "hooks", "identity")]
        folders = [Path(self.top, name) for name in ("free", "counts", "run/vdsm", "log/vdsm", "pki/vdsm", *state)]
        return [str(path) for folder in folders for path in (folder, folder.with_name(f".{folder.name}.new"))]

    def give_to_agent(self) -> None:
        """As VDSM left it. By descriptors: here, too, somebody exchanges things."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        for path in (self.mounts, self.repository):
            try:
                fd = os.open(path, flags)
            except OSError:
                continue
            os.fchown(fd, AGENT, AGENT)
            os.close(fd)

    def gains(self) -> Iterator[str]:
        """What user 36 must not have."""
        if os.listdir(self.etc) != ["sudoers"]:
            yield f"{self.etc} holds {os.listdir(self.etc)}"
        for path, mode in ((self.etc, 0o755), (f"{self.etc}/sudoers", 0o440)):
            info = os.lstat(path)
            if (info.st_uid, info.st_mode & 0o7777) != (0, mode):
                yield f"{path} belongs to user {info.st_uid}, mode {info.st_mode & 0o7777:04o}"
        if Path(self.etc, "sudoers").read_text() != TRUE:
            yield f"{self.etc}/sudoers says something else"
        yield from self._mounts()
        agents = [*self.agents, f"{self.top}/rhev", self.image]
        for folder, folders, files in os.walk(self.top):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in agents]
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if path in agents or path.startswith(f"{self.top}/run/vdsm-root/staging/"):
                    continue
                try:
                    info = os.lstat(path)
                except FileNotFoundError:
                    continue
                if info.st_uid != 0:
                    yield f"{path} belongs to user {info.st_uid}"

    def _mounts(self) -> Iterator[str]:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            point, options = line.split(" ")[4:6]
            if not point.startswith(self.top):
                continue
            # while mnt was user 36's, it could move it away with what is mounted there: into folders of its own
            places = (self.repository, f"{self.top}/run/vdsm-root/staging", *self.agents)
            if not point.startswith(tuple(f"{place}/" for place in places)):
                yield f"something is mounted on {point}"
            if not {"nosuid", "nodev"} <= set(options.split(",")):
                yield f"{point} is mounted with {options}"


class Fight:
    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.starts = 0
        self._helper: subprocess.Popen[bytes] | None = None
        scripts = {}
        for name, text in (("exchanges", EXCHANGES), ("calls", CALLS)):
            scripts[name] = f"{ground.top}/{name}.py"
            Path(scripts[name]).write_text(text)
        self._attackers = [
            *(self._as_agent(scripts["exchanges"], ground.top, str(seed), *ground.places) for seed in (1, 2)),
            self._as_agent(scripts["exchanges"], ground.top, "5", ground.mounts),
            *(self._as_agent(scripts["calls"], ground.top, str(seed), POOL, ground.image) for seed in (3, 4)),
        ]

    def _as_agent(self, *arguments: str) -> subprocess.Popen[bytes]:
        user = [f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups", "--pdeathsig", "KILL"]
        # nice: the helper, which they attack, must get on
        return subprocess.Popen(["nice", "setpriv", *user, "--", "/usr/bin/python3", "-I", "-S", *arguments], cwd="/")

    def start(self) -> None:
        self.starts += 1
        log = open(f"{self.ground.top}/helper.log", "ab")  # noqa: SIM115 - the helper's from here on
        with log:
            self._helper = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", HELPER, self.ground.top],
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
            )

    @property
    def has_ended(self) -> bool:
        return self._helper is not None and self._helper.poll() is not None

    def end(self, number: int) -> None:
        if self._helper is not None:
            self._helper.send_signal(number)
            try:
                self._helper.wait(STOP_S)
            except subprocess.TimeoutExpired:  # it waits for calls, which go on: as systemd does then
                self._helper.kill()
                self._helper.wait()

    def stop(self) -> None:
        self.end(signal.SIGKILL)
        for attacker in self._attackers:
            attacker.kill()
            attacker.wait()

    def counts(self) -> dict[str, int]:
        total = {"starts": self.starts}
        for file in Path(self.ground.counts).glob("[0-9]"):
            for name, count in json.loads(file.read_text()).items():
                total[name] = total.get(name, 0) + count
        return total


def fight(top: str, seconds: float) -> dict[str, object]:
    ground = Ground(top)
    gained: set[str] = set()
    attack = Fight(ground)
    end = time.monotonic() + seconds
    now = random.Random(0)
    try:
        while (time.monotonic() < end or attack.starts < LEAST_STARTS) and not gained:
            attack.start()
            while not os.path.exists(ground.socket) and not gained:
                gained.update(ground.gains())
                if attack.has_ended:
                    gained.add(f"the helper ended: {Path(top, 'helper.log').read_text()[-2000:]}")
            stop = time.monotonic() + ROUND_S + now.random()
            while time.monotonic() < stop:
                gained.update(ground.gains())
                time.sleep(0.02)
            attack.end(now.choice((signal.SIGKILL, signal.SIGTERM)))
            Path(ground.socket).unlink(missing_ok=True)
            gained.update(ground.gains())
            if attack.starts % 2:
                ground.give_to_agent()
                time.sleep(0.3)
    finally:
        attack.stop()
    return {**attack.counts(), "gained": sorted(gained)}


if __name__ == "__main__":
    print(json.dumps(fight(sys.argv[1], float(sys.argv[2]))))
