# SPDX-License-Identifier: GPL-2.0-or-later
"""What may stand in a domain XML that an operator sends: a table, and nothing that is not in it.

A row is an element's path below ``domain``, its attributes and its text (``#``), each with a pattern for the whole
value. ``*`` in a path is any one name. Words in patterns: ``{VM}`` the VM's id, ``{UUID}`` any id, ``{N}`` a number,
``{W}`` a plain word, ``{ON}`` a switch, ``{TEXT}`` what is only shown or told to the guest, ``{IMAGE}`` and ``{ISO}``
paths in the repository of images.

What an entry may not do, whatever its values: name a file, socket or device of the host (but for images, and sockets
with the VM's own id), another program, QEMU's command line, an address to listen at that is not a console's, a security
label, another VM's lease. So there are no rows for emulator, kernel, hostdev, filesystem, lease, seclabel, loaders
outside the firmware's folders, logs, or channels to files and networks.
"""

from __future__ import annotations

import re

_WORDS = {
    "UUID": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "N": "[0-9]{1,18}",
    "W": r"[\w.:+@,^-]{0,128}",
    "ON": "on|off|yes|no|true|false|default",
    "TEXT": r"[^\x00-\x1f/]{0,255}",
    "HEX": "(0x)?[0-9a-f]{1,16}",
    "IP": r"[0-9a-fA-F.:]{2,45}",
}
_WORDS["IMAGE"] = (
    "/rhev/data-center/({UUID}/{UUID}/images/{UUID}/{UUID}|mnt/[^/]{1,255}(/[^/.][^/]{0,254})?/{UUID}/images/{UUID}/{UUID})"
).replace("{UUID}", _WORDS["UUID"])
_WORDS["ISO"] = (
    r"/rhev/data-center/{UUID}/{UUID}/images/11111111-1111-1111-1111-111111111111/[\w][\w .()+-]{0,254}"
).replace("{UUID}", _WORDS["UUID"])

_FIRMWARE = r"/usr/share/(OVMF|edk2|edk2-ovmf|qemu|AAVMF)/[\w/-]{1,80}(\.secboot)?\.fd"
_IOTUNE = dict.fromkeys(["#"], "{N}")

Rules = dict[str, str]

TABLE: dict[str, Rules] = {
    "": {"type": "kvm|qemu"},
    "name": {"#": r"[\w][\w.+:@-]{0,254}"},
    "uuid": {"#": "{VM}"},
    "title": {"#": "{TEXT}"},
    "description": {"#": "{TEXT}"},
    "genid": {"#": "|{UUID}"},
    "maxMemory": {"#": "{N}", "slots": "{N}", "unit": "{W}"},
    "memory": {"#": "{N}", "unit": "{W}"},
    "currentMemory": {"#": "{N}", "unit": "{W}"},
    "memoryBacking": {},
    "memoryBacking/hugepages": {},
    "memoryBacking/hugepages/page": {"size": "{N}", "unit": "{W}", "nodeset": "{W}"},
    "memoryBacking/nosharepages": {},
    "memoryBacking/source": {"type": "memfd|anonymous"},
    "memoryBacking/access": {"mode": "shared|private"},
    "vcpu": {"#": "{N}", "current": "{N}", "placement": "static|auto", "cpuset": "{W}"},
    "iothreads": {"#": "{N}"},
    "cputune": {},
    "cputune/shares": {"#": "{N}"},
    "cputune/period": {"#": "{N}"},
    "cputune/quota": {"#": "-?{N}"},
    "cputune/vcpupin": {"vcpu": "{N}", "cpuset": "{W}"},
    "cputune/emulatorpin": {"cpuset": "{W}"},
    "cputune/iothreadpin": {"iothread": "{N}", "cpuset": "{W}"},
    "numatune": {},
    "numatune/memory": {"mode": "{W}", "nodeset": "{W}", "placement": "static|auto"},
    "numatune/memnode": {"cellid": "{N}", "mode": "{W}", "nodeset": "{W}"},
    "cpu": {"mode": "{W}", "match": "{W}", "check": "{W}", "migratable": "{ON}"},
    "cpu/model": {"#": "{W}", "fallback": "allow|forbid", "vendor_id": "{W}"},
    "cpu/vendor": {"#": "{W}"},
    "cpu/topology": dict.fromkeys(("sockets", "dies", "clusters", "cores", "threads"), "{N}"),
    "cpu/feature": {"name": "{W}", "policy": "force|require|optional|disable|forbid"},
    "cpu/cache": {"mode": "{W}", "level": "{N}"},
    "cpu/maxphysaddr": {"mode": "{W}", "bits": "{N}"},
    "cpu/numa": {},
    "cpu/numa/cell": {"id": "{N}", "cpus": "{W}", "memory": "{N}", "unit": "{W}", "memAccess": "shared|private"},
    "sysinfo": {"type": "smbios"},
    "sysinfo/system": {},
    "sysinfo/system/entry": {"#": "{TEXT}", "name": "{W}"},
    "sysinfo/bios": {},
    "sysinfo/bios/entry": {"#": "{TEXT}", "name": "{W}"},
    "clock": {"offset": "{W}", "adjustment": "-?{N}", "basis": "utc|localtime", "timezone": "[A-Za-z_/+-]{1,64}"},
    "clock/timer": dict.fromkeys(("name", "track", "tickpolicy", "present", "frequency", "mode"), "{W}"),
    "os": {"firmware": "efi|bios"},
    "os/type": {"#": "hvm", "arch": "{W}", "machine": "{W}"},
    "os/boot": {"dev": "hd|cdrom|network|fd"},
    "os/bootmenu": {"enable": "{ON}", "timeout": "{N}"},
    "os/bios": {"useserial": "{ON}", "rebootTimeout": "-?{N}"},
    "os/smbios": {"mode": "sysinfo|emulate"},
    "os/loader": {"#": _FIRMWARE, "readonly": "yes", "secure": "{ON}", "type": "pflash|rom"},
    "os/nvram": {"#": "|/var/lib/libvirt/qemu/nvram/{VM}\\.fd", "template": _FIRMWARE},
    "os/firmware": {},
    "os/firmware/feature": {"name": "{W}", "enabled": "{ON}"},
    "features": {},
    "features/*": {"state": "{ON}", "eoi": "{ON}", "driver": "{W}", "mode": "custom|passthrough"},
    "features/kvm/*": {"state": "{ON}"},
    "features/hyperv/*": {"state": "{ON}", "retries": "{N}", "value": "{TEXT}", "mode": "{W}"},
    "features/hyperv/stimer/direct": {"state": "{ON}"},
    "features/smm/tseg": {"#": "{N}", "unit": "{W}"},
    "pm": {},
    "pm/suspend-to-mem": {"enabled": "{ON}"},
    "pm/suspend-to-disk": {"enabled": "{ON}"},
    "on_poweroff": {"#": "destroy|restart|preserve"},
    "on_reboot": {"#": "destroy|restart|preserve"},
    "on_crash": {"#": "destroy|restart|preserve"},
    "qemu:capabilities": {},
    "qemu:capabilities/qemu:add": {"capability": "blockdev|incremental-backup"},
    "qemu:capabilities/qemu:del": {"capability": "blockdev|incremental-backup"},
    # devices: what any of them may have
    "devices": {},
    "devices/*/alias": {"name": "{W}"},
    "devices/*/boot": {"order": "{N}"},
    "devices/*/address": {
        "type": "pci|drive|virtio-serial|ccid|usb|isa|dimm|none|spapr-vio|ccw",
        **dict.fromkeys(("domain", "bus", "slot", "function", "base", "iobase", "irq"), "{HEX}"),
        **dict.fromkeys(("controller", "target", "unit", "port"), "[0-9.]{1,18}"),
        "multifunction": "{ON}",
    },
    # disks
    "devices/disk": {"type": "file|block", "device": "disk|cdrom|floppy", "snapshot": "{W}", "model": "{W}"},
    "devices/disk/driver": {
        "name": "qemu",
        "type": "raw|qcow2",
        "cache": "none|writeback|writethrough|directsync|unsafe|default",
        "io": "native|threads|io_uring",
        **dict.fromkeys(("error_policy", "rerror_policy"), "stop|report|ignore|enospace"),
        **dict.fromkeys(("discard", "detect_zeroes", "iothread", "queues", "queue_size"), "{W}"),
        **dict.fromkeys(("event_idx", "ioeventfd", "copy_on_read", "iommu", "packed", "discard_no_unref"), "{ON}"),
    },
    "devices/disk/source": {
        "file": "|{IMAGE}|{ISO}",
        "dev": "|{IMAGE}",
        "startupPolicy": "mandatory|requisite|optional",
        "index": "{N}",
    },
    "devices/disk/source/seclabel": {"model": "dac", "relabel": "no", "type": "none"},
    "devices/disk/target": {"dev": "[a-z]{2,4}", "bus": "{W}", "removable": "{ON}", "tray": "open|closed"},
    "devices/disk/serial": {"#": "{TEXT}"},
    "devices/disk/wwn": {"#": "{HEX}"},
    "devices/disk/vendor": {"#": "{TEXT}"},
    "devices/disk/product": {"#": "{TEXT}"},
    "devices/disk/readonly": {},
    "devices/disk/shareable": {},
    "devices/disk/blockio": {"logical_block_size": "{N}", "physical_block_size": "{N}", "discard_granularity": "{N}"},
    "devices/disk/iotune": {},
    "devices/disk/iotune/*": _IOTUNE,
    # networks
    "devices/interface": {"type": "bridge"},
    "devices/interface/mac": {"address": "([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}"},
    "devices/interface/model": {"type": "{W}"},
    "devices/interface/source": {"bridge": r";vdsmdummy;|[\w.:-]{1,15}"},
    "devices/interface/target": {"dev": r"vnet[0-9]{1,6}"},
    "devices/interface/link": {"state": "up|down"},
    "devices/interface/mtu": {"size": "{N}"},
    "devices/interface/driver": {
        "name": "vhost|qemu",
        "queues": "{N}",
        "rx_queue_size": "{N}",
        "tx_queue_size": "{N}",
        "iommu": "{ON}",
    },
    "devices/interface/filterref": {"filter": "[a-z][a-z-]{0,63}"},
    "devices/interface/filterref/parameter": {"name": "{W}", "value": "{W}"},
    "devices/interface/bandwidth": {},
    "devices/interface/bandwidth/inbound": dict.fromkeys(("average", "peak", "burst", "floor"), "{N}"),
    "devices/interface/bandwidth/outbound": dict.fromkeys(("average", "peak", "burst"), "{N}"),
    "devices/interface/virtualport": {"type": "openvswitch"},
    "devices/interface/virtualport/parameters": {"interfaceid": "{UUID}", "profileid": "{W}"},
    "devices/interface/port": {"isolated": "{ON}"},
    "devices/interface/rom": {"bar": "{ON}", "enabled": "{ON}"},
    "devices/interface/tune": {},
    "devices/interface/tune/sndbuf": {"#": "{N}"},
    # consoles and channels: sockets with the VM's own id only
    "devices/graphics": {
        "type": "spice|vnc",
        "autoport": "{ON}",
        "port": "-?{N}",
        "tlsPort": "-?{N}",
        "keymap": "{W}",
        "defaultMode": "{W}",
        "sharePolicy": "{W}",
        "connected": "{W}",
        "passwd": "{TEXT}",
        "passwdValidTo": "{W}",
        "listen": "{IP}",
    },
    "devices/graphics/listen": {"type": "network|address", "network": r"vdsm-[\w.-]{1,64}", "address": "{IP}"},
    "devices/graphics/channel": {"name": "{W}", "mode": "{W}"},
    **{
        f"devices/graphics/{name}": {key: "{W}"}
        for name, key in (
            ("image", "compression"),
            ("jpeg", "compression"),
            ("zlib", "compression"),
            ("playback", "compression"),
            ("streaming", "mode"),
            ("clipboard", "copypaste"),
            ("mouse", "mode"),
            ("filetransfer", "enable"),
        )
    },
    "devices/video": {},
    "devices/video/model": {
        "type": "{W}",
        **dict.fromkeys(("vram", "ram", "vgamem", "vram64", "heads"), "{N}"),
        "primary": "{ON}",
    },
    "devices/serial": {"type": "pty|unix"},
    "devices/serial/source": {"mode": "bind", "path": r"(/var)?/run/ovirt-vmconsole-console/{VM}\.sock"},
    "devices/serial/target": {"type": "{W}", "port": "{N}"},
    "devices/serial/target/model": {"name": "{W}"},
    "devices/console": {"type": "pty|unix"},
    "devices/console/source": {"mode": "bind", "path": r"(/var)?/run/ovirt-vmconsole-console/{VM}\.sock"},
    "devices/console/target": {"type": "{W}", "port": "{N}"},
    "devices/channel": {"type": "unix|spicevmc"},
    "devices/channel/source": {"mode": "bind", "path": r"/var/lib/libvirt/qemu/channels/{VM}\.[\w.-]{1,100}"},
    "devices/channel/target": {"type": "virtio", "name": "{W}"},
    "devices/smartcard": {"mode": "passthrough", "type": "spicevmc"},
    "devices/redirdev": {"bus": "usb", "type": "spicevmc"},
    "devices/redirdev/protocol": {"type": "{W}"},
    "devices/sound": {"model": "{W}"},
    "devices/sound/codec": {"type": "{W}"},
    "devices/audio": {"id": "{N}", "type": "spice|none"},
    "devices/input": {"type": "tablet|mouse|keyboard", "bus": "{W}", "model": "{W}"},
    "devices/hub": {"type": "usb"},
    # the rest
    "devices/controller": {
        "type": "{W}",
        "model": "{W}",
        "index": "{N}",
        "ports": "{N}",
        "vectors": "{N}",
    },
    "devices/controller/master": {"startport": "{N}"},
    "devices/controller/model": {"name": "{W}"},
    "devices/controller/target": {
        "chassis": "{N}",
        "chassisNr": "{N}",
        "port": "{HEX}",
        "busNr": "{N}",
        "index": "{N}",
    },
    "devices/controller/driver": {"iothread": "{N}", "queues": "{N}", "ioeventfd": "{ON}", "max_sectors": "{N}"},
    "devices/memory": {"model": "dimm", "access": "shared|private"},
    "devices/memory/target": {},
    "devices/memory/target/size": {"#": "{N}", "unit": "{W}"},
    "devices/memory/target/node": {"#": "{N}"},
    "devices/memory/source": {},
    "devices/memory/source/pagesize": {"#": "{N}", "unit": "{W}"},
    "devices/memory/source/nodemask": {"#": "{W}"},
    "devices/memballoon": {"model": "{W}", "autodeflate": "{ON}", "freePageReporting": "{ON}"},
    "devices/memballoon/stats": {"period": "{N}"},
    "devices/rng": {"model": "{W}"},
    "devices/rng/rate": {"bytes": "{N}", "period": "{N}"},
    "devices/rng/backend": {"#": "/dev/urandom|/dev/random|/dev/hwrng", "model": "random"},
    "devices/watchdog": {"model": "{W}", "action": "none|reset|poweroff|pause|shutdown|inject-nmi"},
    "devices/tpm": {"model": "{W}"},
    "devices/tpm/backend": {"type": "emulator", "version": "[0-9.]{1,4}"},
    "devices/panic": {"model": "{W}"},
    "devices/vsock": {"model": "{W}"},
    "devices/vsock/cid": {"auto": "yes", "address": "{N}"},
    "devices/iommu": {"model": "intel"},
    "devices/iommu/driver": dict.fromkeys(("intremap", "caching_mode", "eim", "iotlb"), "{ON}"),
    # what an engine notes about the VM; custom properties start hook scripts and are checked apart
    "metadata": {},
    "metadata/tune:qos": {},
    "metadata/tune:qos/tune:vcpuLimit": {"#": "{N}"},
    "metadata/vm:vm": {},
    **{
        f"metadata/vm:vm/vm:{name}": {"#": "{W}", "type": "int|float|bool"}
        for name in (
            "minGuaranteedMemoryMb",
            "clusterVersion",
            "launchPaused",
            "resumeBehavior",
            "ballooningEnabled",
            "cpuPolicy",
        )
    },
    "metadata/vm:vm/vm:custom": {},
    "metadata/vm:vm/vm:custom/*": {"#": "{TEXT}", "type": "int|float|bool"},
    "metadata/vm:vm/vm:device": {
        "devtype": "disk|interface",
        "name": "{W}",
        "alias": "{W}",
        "mac_address": "([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}",
    },
    **{
        f"metadata/vm:vm/vm:device/vm:{name}": {"#": "{UUID}"} for name in ("poolID", "domainID", "imageID", "volumeID")
    },
    "metadata/vm:vm/vm:device/vm:shared": {"#": "exclusive|shared|none|false|true"},
    "metadata/vm:vm/vm:device/vm:network": {"#": "{W}"},
    "metadata/vm:vm/vm:device/vm:custom": {},
}


def pattern(text: str, vm_id: str) -> re.Pattern[str]:
    """The compiled pattern of a table's value for that VM."""
    for word, meaning in {**_WORDS, "VM": re.escape(vm_id)}.items():
        text = text.replace("{" + word + "}", f"(?:{meaning})")
    return re.compile(f"(?:{text})", re.ASCII)
