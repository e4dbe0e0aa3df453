# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of a failure that has none of its own: by the verb that failed.

Engines read the number, not the text. Some numbers make them take a failure for a success ("the image is gone
already", "the task is forgotten already"): such a number is never a default. On the SPM's channel most numbers
move the SPM to another host, which is right for a failure that nobody foresaw.
"""

from __future__ import annotations

GENERAL = 100
INTERNAL_ERROR = -32603

_BY_VERB = {
    "Host.getDeviceList": 600,
    "Host.getDevicesVisibility": 600,
    "Host.getLVMVolumeGroups": 514,
    "Host.getStorageDomains": 350,
    "Host.getStorageRepoStats": 350,
    "ISCSIConnection.discoverSendTargets": 475,
    "Image.getVolumes": 250,
    "Image.move": 253,
    "Image.prepare": 250,
    "LVMVolumeGroup.create": 502,
    "LVMVolumeGroup.remove": 508,
    "StorageDomain.activate": 359,
    "StorageDomain.attach": 354,
    "StorageDomain.create": 351,
    "StorageDomain.deactivate": 357,
    "StorageDomain.detach": 356,
    "StorageDomain.extend": 503,
    "StorageDomain.format": 352,
    "StorageDomain.getFileStats": 330,
    "StorageDomain.resizePV": 615,
    "StoragePool.connect": 302,
    "StoragePool.connectStorageServer": 451,
    "StoragePool.create": 301,
    "StoragePool.destroy": 308,
    "StoragePool.disconnect": 303,
    "StoragePool.disconnectStorageServer": 452,
    "StoragePool.reconstructMaster": 306,
    "StoragePool.spmStart": 650,
    "StoragePool.spmStop": 653,
    "StoragePool.updateVMs": 305,
    "Task.clear": 402,
    "Volume.copy": 225,
    "Volume.create": 205,
    "Volume.delete": 222,
    "Volume.extendSize": 206,
    "Volume.getInfo": 207,
    "Volume.getSize": 207,
    "Volume.refresh": 556,
    "Volume.setDescription": 208,
    "Volume.setLegality": 208,
}
# Image: 250 and not 256, which engines take for "deleted"; Task: 400 and not 401, which they take for "forgotten"
_BY_NAMESPACE = {
    "ISCSIConnection": 454,
    "Image": 250,
    "LVMVolumeGroup": 500,
    "Lease": 200,
    "NBD": 200,
    "SDM": 200,
    "StorageDomain": 350,
    "StoragePool": 300,
    "Task": 400,
    "Volume": 200,
}


def of_error(verb: str) -> int:
    """For an error of ours that has no code."""
    return _BY_VERB.get(verb, _BY_NAMESPACE.get(verb.partition(".")[0], GENERAL))


def of_defect(verb: str) -> int:
    """For an exception that nobody foresaw. Verbs of Host answer the protocol's own number."""
    code = of_error(verb)
    own = verb.partition(".")[0] not in ("VM", "ManagedVolume")
    return INTERNAL_ERROR if code == GENERAL and own else code
