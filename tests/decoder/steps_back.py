# SPDX-License-Identifier: GPL-2.0-or-later
"""What the field's SPM does with a stored, unfinished task: a model of its steps back on a file domain.

Each function does what storage.md 11.3 says of the callable, and raises where that one raises. It opens volumes as that
program does: the image's folder, the payload and the metadata must be there.
"""

import os

from tests.decoder import text

BLANK = text.BLANK


class Refused(Exception):
    pass


def undo(task, domain):
    """Runs the stored steps from the last to the first on the domain at this path: "recovered" or why it failed."""
    for recovery in reversed(task.recoveries):
        function = CALLS.get(recovery.call)
        if function is None:
            return f"{recovery.call} is not known"
        try:
            function(str(domain), *recovery.params)
        except (Refused, TypeError, OSError, ValueError) as e:
            return f"{recovery.call}{recovery.params}: {e!r}"
    return "recovered"


def create_image_rollback(_domain, folder):
    if os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)


def parent_volume_rollback(domain, sd, image, parent):
    if BLANK in (image, parent):
        return
    _check(sd == os.path.basename(domain), "another domain")
    fields = _open(f"{domain}/images/{image}", parent)
    _check(fields["VOLTYPE"] != "SHARED", "219: shared")
    _check(fields["LEGALITY"] == "LEGAL", "227: illegal")
    above = fields["PUUID"]
    while above != BLANK:
        above = _open(f"{domain}/images/{image}", above)["PUUID"]
    _recompute(f"{domain}/images/{image}", parent)


def share_volume_rollback(_domain, path):
    for suffix in ("", ".meta", ".lease"):
        _unlink(path + suffix)


def start_create_volume_rollback(_domain, _sd, _image, _volume):
    pass


def halfbaked_volume_rollback(_domain, *params):
    _check(len(params) in (1, 3), f"{len(params)} parameters")
    path = params[-1]
    if len(params) == 3:
        _check(path.endswith(f"/{params[1]}") and f"/{params[0]}/images/" in path, f"not the path of {params[:2]}")
    if os.path.exists(path) and not os.path.exists(path + ".meta"):
        os.unlink(path)


def create_volume_metadata_rollback(_domain, path):
    _unlink(path + ".meta")


def create_volume_rollback(domain, repository, sd, image, volume, folder):
    pools = text.domain(_read(f"{domain}/dom_md/metadata"))["POOL_UUID"].split(",")
    _check(os.path.basename(repository) == pools[0], f"{repository} is not the repository of pool {pools[0]}")
    _check(folder.endswith(f"/{sd}/images/{image}"), f"{folder} is not the folder of image {image}")
    fields = _open(folder, volume)
    for suffix in ("", ".lease", ".meta"):
        _unlink(f"{folder}/{volume}{suffix}")
    parent = fields["PUUID"]
    shared = parent == BLANK or _open(folder, parent)["VOLTYPE"] == "SHARED"
    if not shared:
        _recompute(folder, parent)
    own = [name for name in _volumes(folder) if _open(folder, name)["IMAGE"] == image]
    if not own and shared:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)


def extend_size_finalize(domain, sd, image, volume):
    _check(sd == os.path.basename(domain), "another domain")
    path = f"{domain}/images/{image}/{volume}"
    fields = _open(os.path.dirname(path), volume)
    _write(path + ".meta", {**fields, "CAP": str(os.path.getsize(path))})


CALLS = {
    "sd.StorageDomain.create_image_rollback": create_image_rollback,
    "volume.Volume.parentVolumeRollback": parent_volume_rollback,
    "volume.Volume.extendSizeFinalize": extend_size_finalize,
    "fileVolume.FileVolume.shareVolumeRollback": share_volume_rollback,
    "fileVolume.FileVolume.startCreateVolumeRollback": start_create_volume_rollback,
    "fileVolume.FileVolume.halfbakedVolumeRollback": halfbaked_volume_rollback,
    "fileVolume.FileVolume.createVolumeMetadataRollback": create_volume_metadata_rollback,
    "fileVolume.FileVolume.createVolumeRollback": create_volume_rollback,
}


def _open(folder, volume):
    for path in (folder, f"{folder}/{volume}", f"{folder}/{volume}.meta"):
        _check(os.path.exists(path), f"201: {path} is missing")
    return text.volume(_read(f"{folder}/{volume}.meta"))


def _volumes(folder):
    return [name.removesuffix(".meta") for name in os.listdir(folder) if name.endswith(".meta")]


def _recompute(folder, volume):
    fields = _open(folder, volume)
    children = [v for v in _volumes(folder) if text.volume(_read(f"{folder}/{v}.meta"))["PUUID"] == volume]
    _write(f"{folder}/{volume}.meta", {**fields, "VOLTYPE": "INTERNAL" if children else "LEAF"})


def _write(path, fields):
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write("".join(f"{key}={fields[key]}\n" for key in sorted(fields)) + "EOF\n")
    os.rename(path + ".new", path)


def _unlink(path):
    if os.path.lexists(path):
        os.unlink(path)


def _read(path):
    with open(path, "rb") as f:
        return f.read()


def _check(truth, message):
    if not truth:
        raise Refused(message)
