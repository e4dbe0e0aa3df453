# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters in the forms in which an engine sends them: none is refused for its form."""

import pytest

from vdsm.rpc.dispatcher import ENGINE

VM = "11111111-1111-4111-8111-111111111111"
POOL = "22222222-2222-4222-8222-222222222222"
DOMAIN = "33333333-3333-4333-8333-333333333333"
IMAGE = "44444444-4444-4444-8444-444444444444"
VOLUME = "55555555-5555-4555-8555-555555555555"
JOB = "66666666-6666-4666-8666-666666666666"
BLANK = "00000000-0000-0000-0000-000000000000"
IDS = {"storagepoolID": POOL, "storagedomainID": DOMAIN, "imageID": IMAGE}
DRIVE = {"poolID": POOL, "domainID": DOMAIN, "imageID": IMAGE, "volumeID": VOLUME}
ENDPOINT = {"endpoint_type": "div", "sd_id": DOMAIN, "img_id": IMAGE, "vol_id": VOLUME, "generation": 1}
SERVER = {
    "id": JOB,
    "connection": "192.0.2.1:/export",
    "port": "",
    "iqn": "",
    "user": "",
    "password": "",
    "ipv6_enabled": "false",
    "protocol_version": "auto",
    "timeout": "600",
    "retrans": "6",
}
NETWORK = {
    "nic": "eth0",
    "vlan": "10",
    "mtu": 1500,
    "bridged": "true",
    "STP": "no",
    "bootproto": "none",
    "ipaddr": "192.0.2.9",
    "netmask": "255.255.255.0",
    "ipv6autoconf": False,
    "dhcpv6": False,
    "defaultRoute": True,
    "switch": "legacy",
    "hostQos": {"out": {"ls": {"m2": 50}}},
}
SHUTDOWN = {"vmID": VM, "delay": "30", "message": "bye", "reboot": False, "timeout": 30, "force": False}
MIGRATE = {
    "vmId": VM,
    "src": "host1",
    "dst": "host2:54321",
    "method": "online",
    "tunneled": "false",
    "abortOnError": "true",
    "downtime": "500",
    "autoConverge": "true",
    "compressed": "false",
    "maxBandwidth": 500,
    "convergenceSchedule": {
        "init": [{"name": "setDowntime", "params": ["100"]}],
        "stalling": [{"limit": 1, "action": {"name": "setDowntime", "params": ["150"]}}],
    },
    "outgoingLimit": 2,
    "incomingLimit": 2,
    "encrypted": False,
    "parallel": 2,
    "zerocopy": False,
    "cpusets": ["0", "1"],
    "numaNodesets": ["0"],
    "enableGuestEvents": True,
}
TICKET = {
    "deviceType": "graphics",
    "graphicsType": "vnc",
    "password": "x",
    "ttl": 120,
    "disconnectAction": "NONE",
    "consoleDisconnectActionDelay": 0,
    "params": {"userName": "admin", "userId": JOB, "fips": "false", "vncUsername": ""},
}
CREATE_VOLUME = {
    **IDS,
    "volumeID": VOLUME,
    "size": "1073741824",
    "volFormat": 5,
    "preallocate": 2,
    "diskType": "DATA",
    "desc": '{"DiskAlias":"d"}',
    "srcImgUUID": BLANK,
    "srcVolUUID": BLANK,
    "initialSize": "1048576",
    "legal": True,
    "sequence": 1,
}
SPM_START = {"storagepoolID": POOL, "prevID": -1, "prevLver": "-1", "enableScsiFencing": "false", "maxHostID": 250}
CONNECT_POOL = {
    "storagepoolID": POOL,
    "hostID": 1,
    "scsiKey": POOL,
    "masterSdUUID": DOMAIN,
    "masterVersion": 1,
    "domainDict": {DOMAIN: "active"},
}
COPY_VOLUME = {
    **{key: CREATE_VOLUME[key] for key in ("storagepoolID", "storagedomainID", "imageID", "volumeID", "desc")},
    "dstSdUUID": DOMAIN,
    "dstImgUUID": IMAGE,
    "dstVolUUID": VOLUME,
    "volType": "SHARED",
    "volFormat": 4,
    "preallocate": 2,
    "postZero": "false",
    "force": "false",
    "discard": False,
}
FENCE = {
    "addr": "192.0.2.2",
    "port": "623",
    "agent": "ipmilan",
    "username": "u",
    "password": "p",
    "action": "status",
    "secure": "false",
    "options": "lanplus=1",
}

BUILT = [
    ("StoragePool.connectStorageServer", {"storagepoolID": POOL, "domainType": 1, "connectionParams": [SERVER]}),
    ("StoragePool.connect", CONNECT_POOL),
    ("StoragePool.spmStart", {**SPM_START, "domVersion": "5"}),
    ("Volume.create", CREATE_VOLUME),
    ("Volume.extendSize", {**IDS, "volumeID": VOLUME, "newSize": "2147483648"}),
    ("Image.delete", {**IDS, "postZero": "false", "force": "true", "discard": False}),
    ("Image.teardown", {**IDS, "leafVolID": VOLUME}),
    ("VM.shutdown", SHUTDOWN),
    ("VM.destroy", {"vmID": VM, "gracefulAttempts": "1"}),
    ("VM.create", {"vmID": VM, "vmParams": {"vmId": VM, "xml": "<domain/>"}}),
    (
        "Host.setupNetworks",
        {
            "networks": {"blue": NETWORK, "old": {"remove": "true"}},
            "bondings": {},
            "options": {"connectivityCheck": "true", "connectivityTimeout": 120, "commitOnSuccess": True},
        },
    ),
    ("StoragePool.upgrade", {"storagepoolID": POOL, "targetDomVersion": "5"}),
    ("StorageDomain.getFileStats", {"storagedomainID": DOMAIN, "pattern": "*", "caseSensitive": "false"}),
    (
        "StorageDomain.create",
        {
            "storagedomainID": DOMAIN,
            "domainType": 1,
            "typeArgs": "192.0.2.1:/export",
            "name": "data",
            "domainClass": 1,
            "version": "5",
            "blockSize": 512,
            "maxHosts": 250,
        },
    ),
]
NOT_BUILT = [
    ("Host.getDeviceList", {"storageType": 3, "guids": ["360014"], "checkStatus": False}),
    ("Host.getDevicesVisibility", {"guidList": ["36001405f1a3d4b5c"]}),
    ("Host.fenceNode", FENCE),
    ("Host.setMOMPolicyParameters", {"key_value_store": {"balloonEnabled": True, "ksmMergeAcrossNodes": True}}),
    ("Host.hostdevListByCaps", {}),
    ("Host.getLldp", {"filter": {"devices": ["eth0"]}}),
    ("ISCSIConnection.discoverSendTargets", {"host": "192.0.2.1", "port": "3260", "ipv6_enabled": "false"}),
    ("LVMVolumeGroup.create", {"name": DOMAIN, "devlist": ["36001"], "force": "true"}),
    ("LVMVolumeGroup.getInfo", {"lvmvolumegroupID": "Xh5u2m-AbCd-1234-5678-9abc-defg-HiJkLm"}),
    ("VM.migrate", {"vmID": VM, "params": MIGRATE}),
    ("VM.updateDevice", {"vmID": VM, "params": TICKET}),
    ("VM.changeCD", {"vmID": VM, "driveSpec": ""}),
    ("VM.changeCD", {"vmID": VM, "driveSpec": {**DRIVE, "device": "cdrom", "iface": "sata", "index": "2"}}),
    ("VM.hotplugDisk", {"vmID": VM, "params": {"vmId": VM, "xml": "<disk/>"}}),
    ("VM.hotplugLease", {"vmID": VM, "lease": {"type": "lease", "lease_id": VM, "sd_id": DOMAIN}}),
    ("VM.setNumberOfCpus", {"vmID": VM, "numberOfCpus": "4"}),
    ("VM.diskSizeExtend", {"vmID": VM, "driveSpecs": DRIVE, "newSize": "2147483648"}),
    (
        "VM.merge",
        {"vmID": VM, "drive": DRIVE, "baseVolUUID": VOLUME, "topVolUUID": IMAGE, "bandwidth": "0", "jobUUID": JOB},
    ),
    (
        "VM.snapshot",
        {
            "vmID": VM,
            "snapDrives": [{"domainID": DOMAIN, "imageID": IMAGE, "baseVolumeID": VOLUME, "volumeID": JOB}],
            "snapMemory": ",".join([DOMAIN, POOL, IMAGE, VOLUME, IMAGE, VOLUME]),
            "frozen": False,
            "jobUUID": JOB,
            "timeout": 1800,
        },
    ),
    (
        "SDM.copy_data",
        {"job_id": JOB, "source": ENDPOINT, "destination": ENDPOINT, "copy_bitmaps": False, "legal": True},
    ),
    (
        "Image.move",
        {**IDS, "dstSdUUID": DOMAIN, "operation": 2, "postZero": "false", "force": "false", "discard": False},
    ),
    ("Volume.copy", COPY_VOLUME),
    ("Lease.status", {"lease": {"sd_id": DOMAIN, "lease_id": VM}}),
    (
        "StoragePool.updateVMs",
        {"storagepoolID": POOL, "vmList": [{"vm": VM, "ovf": "<ovf/>", "imglist": IMAGE}], "storagedomainID": BLANK},
    ),
]


@pytest.mark.parametrize(("verb", "params"), BUILT, ids=lambda value: value if isinstance(value, str) else "")
async def test_form_is_taken(api, verb, params):
    reply = await api.ask(verb, params, ENGINE)
    assert reply.get("error", {}).get("code") != -32602, reply


@pytest.mark.parametrize(("verb", "params"), NOT_BUILT, ids=lambda value: value if isinstance(value, str) else "")
async def test_form_for_a_verb_that_is_not_built_is_taken(api, verb, params):
    reply = await api.ask(verb, params, ENGINE)
    assert reply["error"]["code"] == 44, reply
