# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage over the API of a real host: sanlock, a mounted file system, the agent as user 36."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from contrib.lab import engine
from contrib.lab.host import PrivateHost
from tests.decoder import domain as decoder
from vdsm.client import Client, RpcError

POSIX_MOUNT = "/rhev/data-center/mnt/_srv_posixfs.img"


def _uuid() -> str:
    return str(uuid.uuid4())


def _domain_path(host: PrivateHost, pool: engine.Pool) -> Path:
    return host.path(f"{POSIX_MOUNT}/{pool.domain_id}")


async def _create(client: Client, pool: engine.Pool, image: str, **changes: Any) -> engine.Volume:
    volume = engine.Volume(pool.pool_id, pool.domain_id, image, _uuid())
    params = {
        **volume.ids,
        "size": str(64 << 20),
        "volFormat": 4,
        "preallocate": 2,
        "diskType": "DATA",
        "desc": "",
        "srcImgUUID": engine.BLANK,
        "srcVolUUID": engine.BLANK,
        **changes,
    }
    await engine.finish_task(client, await client.call("Volume.create", params))
    return volume


async def test_every_byte_of_the_domain_is_as_the_format_says(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    base = await _create(client, pool, _uuid(), volFormat=5, preallocate=1, desc="base")
    leaf = await _create(
        client, pool, base.image_id, srcImgUUID=base.image_id, srcVolUUID=base.volume_id, desc='{"DiskAlias":"ä"}'
    )
    decoded = decoder.decode(_domain_path(agent_host, pool))
    assert decoded.fields["ROLE"] == "Master"
    assert decoded.fields["POOL_UUID"] == pool.pool_id
    volumes = decoded.images[base.image_id]
    assert set(volumes) == {base.volume_id, leaf.volume_id}
    assert volumes[base.volume_id].fields["VOLTYPE"] == "INTERNAL"
    assert volumes[leaf.volume_id].fields["PUUID"] == base.volume_id
    assert volumes[base.volume_id].size == volumes[base.volume_id].allocated == 64 << 20
    assert list(decoded.hosts) == [engine.HOST_ID]
    await engine.delete_image(client, base)


async def test_qemu_agrees_about_the_chain(agent_host: PrivateHost, client: Client, pool: engine.Pool) -> None:
    base = await _create(client, pool, _uuid())
    leaf = await _create(client, pool, base.image_id, srcImgUUID=base.image_id, srcVolUUID=base.volume_id)
    prepared = await client.call("Image.prepare", leaf.ids)
    told = agent_host.run(["qemu-img", "info", "-U", "--backing-chain", "--output", "json", prepared["path"]])
    chain = json.loads(told.stdout)
    assert [Path(image["filename"]).name for image in chain] == [leaf.volume_id, base.volume_id]
    assert chain[0]["backing-filename"] == base.volume_id
    assert [volume["volumeID"] for volume in prepared["imgVolumesInfo"]] == [base.volume_id, leaf.volume_id]
    link = f"/run/vdsm/storage/{pool.domain_id}/{base.image_id}"
    assert agent_host.run(["readlink", link]).stdout.decode().strip().endswith(f"images/{base.image_id}")
    ids = {key: value for key, value in leaf.ids.items() if key != "volumeID"}
    await client.call("Image.teardown", {**ids, "leafVolID": leaf.volume_id})
    assert agent_host.run(["test", "-L", link], check=False).returncode == 1
    await engine.delete_image(client, base)


async def test_files_belong_to_user_36_and_are_closed_to_others(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    volume = await _create(client, pool, _uuid())
    for name in (volume.volume_id, f"{volume.volume_id}.lease"):
        found = (_domain_path(agent_host, pool) / "images" / volume.image_id / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (36, 36, 0o660)
    await engine.delete_image(client, volume)


async def test_volume_info_has_the_types_that_engines_cast_to(client: Client, pool: engine.Pool) -> None:
    volume = await _create(client, pool, _uuid(), desc="the disk", sequence=3)
    info = await client.call("Volume.getInfo", volume.ids)
    assert {key: info[key] for key in ("uuid", "parent", "status", "format", "type", "voltype", "description")} == {
        "uuid": volume.volume_id,
        "parent": engine.BLANK,
        "status": "OK",
        "format": "COW",
        "type": "SPARSE",
        "voltype": "LEAF",
        "description": "the disk",
    }
    assert info["capacity"] == str(64 << 20)
    assert int(info["apparentsize"]) > 0
    assert all(isinstance(info[key], str) for key in ("capacity", "truesize", "apparentsize", "ctime"))
    assert (info["sequence"], info["generation"]) == (3, 0)
    assert info["lease"]["owners"] == []
    await client.call("Volume.setLegality", {**volume.ids, "legality": "ILLEGAL"})
    assert (await client.call("Volume.getInfo", volume.ids))["status"] == "ILLEGAL"
    with pytest.raises(RpcError) as caught:
        await client.call("Image.prepare", volume.ids)
    assert caught.value.code == 227
    await engine.delete_image(client, volume)


async def test_the_domains_health_is_told_as_engines_read_it(client: Client, pool: engine.Pool) -> None:
    async def healthy() -> Any:
        told = (await client.call("Host.getStorageRepoStats", {})).get(pool.domain_id, {})
        return told if told.get("acquired") else None

    told = await engine.until("domain healthy", healthy, timeout_s=30)
    assert (told["code"], told["valid"], told["actual"], told["version"]) == (0, True, True, 5)
    assert isinstance(told["lastCheck"], str)
    assert float(told["delay"]) >= 0
    info = await client.call("StoragePool.getInfo", {"storagepoolID": pool.pool_id})
    assert info["dominfo"][pool.domain_id]["status"] == "Active"
    assert int(info["dominfo"][pool.domain_id]["diskfree"]) > 0
    assert info["info"]["spm_id"] == engine.HOST_ID


async def test_who_holds_what_is_told_as_sanlock_has_it(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    told = agent_host.run(["sanlock", "client", "status"]).stdout.decode().splitlines()
    (name,) = [line.split()[1] for line in told if line.startswith("daemon")]
    holder = next(line.split()[-1] for line in told if line.startswith("r ") and ":SDM:" in line)
    (hosts,) = await client.call("storage.getHosts")
    (host,) = hosts["hosts"]
    assert (host["hostId"], host["status"], host["here"]) == (engine.HOST_ID, "live", True)
    assert name.startswith(host["name"])
    assert host["renewedSeconds"] < hosts["limitSeconds"]
    (leases,) = await client.call("storage.getLeases")
    (lease,) = leases["leases"]
    assert (lease["hostId"], lease["here"], lease["pid"]) == (engine.HOST_ID, True, int(holder))
    (shown,) = await client.call("storage.getPools")
    assert (shown["id"], shown["spmStatus"], shown["spmLease"]["pid"]) == (pool.pool_id, "SPM", lease["pid"])


async def test_the_whole_storage_is_shown_on_one_screen(agent_host: PrivateHost, pool: engine.Pool) -> None:
    done = agent_host.run(["vdsm", "storage"], check=False)
    told = done.stdout.decode()
    assert (done.returncode, told.startswith("✔ nothing is wrong")) == (0, True), told
    assert f"{pool.domain_id}  data master  valid" in told


WRONG = [
    ("volumeID", "../../../etc/passwd"),
    ("imageID", "A" * 36),
    ("storagedomainID", 7),
    ("size", "-1"),
    ("size", "many"),
    ("volFormat", 9),
    ("preallocate", "3"),
    ("diskType", "NONE"),
    ("desc", "x" * (10 << 20)),
    ("desc", "x" * 211),
    ("srcVolUUID", None),
    ("sequence", -1),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda v: str(v)[:12])
async def test_wrong_input_names_its_parameter_and_changes_nothing(
    agent_host: PrivateHost, client: Client, pool: engine.Pool, name: str, value: Any
) -> None:
    before = _listing(agent_host, pool)
    good = {
        **engine.Volume(pool.pool_id, pool.domain_id, _uuid(), _uuid()).ids,
        "size": "1048576",
        "volFormat": 4,
        "preallocate": 2,
        "diskType": "DATA",
        "desc": "",
        "srcImgUUID": engine.BLANK,
        "srcVolUUID": engine.BLANK,
    }
    with pytest.raises(RpcError) as caught:
        await client.call("Volume.create", {**good, name: value})
    assert name in str(caught.value)
    assert _listing(agent_host, pool) == before
    assert await client.call("Host.ping2") is True


def _listing(host: PrivateHost, pool: engine.Pool) -> bytes:
    path = f"{POSIX_MOUNT}/{pool.domain_id}"
    skipped = ["!", "-name", "ids", "!", "-name", "leases"]
    return host.run(["find", path, "-type", "f", *skipped, "-printf", "%p %s %T@\n"]).stdout


async def test_a_flipped_byte_of_metadata_is_refused_by_file_and_checksums(
    agent_host: PrivateHost, client: Client, pool: engine.Pool
) -> None:
    path = _domain_path(agent_host, pool) / "dom_md" / "metadata"
    data = path.read_bytes()
    stored = dict(line.split("=", 1) for line in data.decode().splitlines())["_SHA_CKSUM"]
    path.write_bytes(data.replace(b"DESCRIPTION=data", b"DESCRIPTION=dbta", 1))
    try:
        with pytest.raises(RpcError) as caught:
            await client.call("StorageDomain.getInfo", {"storagedomainID": pool.domain_id})
        assert caught.value.code == 752
        assert "dom_md/metadata" in str(caught.value)
        assert stored in str(caught.value)
    finally:
        path.write_bytes(data)
    assert (await client.call("StorageDomain.getInfo", {"storagedomainID": pool.domain_id}))["role"] == "Master"


async def test_the_same_flow_on_a_local_folder(local_pool_host: PrivateHost, local_pool: engine.Pool) -> None:
    async with local_pool_host.client() as client:
        volume = await _create(client, local_pool, _uuid())
        info = await client.call("Volume.getInfo", volume.ids)
        assert "lease" not in info
        status = await client.call("StoragePool.getSpmStatus", {"storagepoolID": local_pool.pool_id})
        assert status == {"spmStatus": "SPM", "spmLver": -1, "spmId": engine.HOST_ID}
        path = (await client.call("StorageDomain.getInfo", {"storagedomainID": local_pool.domain_id}))["remotePath"]
        decoded = decoder.decode(local_pool_host.path(f"{path}/{local_pool.domain_id}"))
        assert set(decoded.images) == {volume.image_id}
        await engine.delete_image(client, volume)


async def test_a_domain_comes_and_goes_whole(fresh_host: PrivateHost) -> None:
    fresh_host.start_agent()
    async with fresh_host.client() as client:
        pool = await engine.new_pool(client)
        await client.call("StoragePool.destroy", {"storagepoolID": pool.pool_id, "hostID": 1, "scsiKey": ""})
        params = {"storagedomainID": pool.domain_id, "autoDetach": False}
        await client.call("StorageDomain.format", params, timeout_s=30)
        assert await client.call("Host.getStorageDomains", {}) == []
        params = {"storagepoolID": engine.BLANK, "domainType": 6, "connectionParams": [pool.connection]}
        (answer,) = await client.call("StoragePool.disconnectStorageServer", params)
        assert answer["status"] == 0
    mounts = fresh_host.run(["cat", "/proc/mounts"]).stdout.decode()
    assert POSIX_MOUNT not in mounts


@pytest.mark.cost(2)
@pytest.mark.parametrize(("vfs_type", "option"), [("cifs", "password"), ("ceph", "secret"), ("nfs", "password")])
async def test_a_secret_of_a_mount_that_fails_is_nowhere_to_be_read(
    agent_host: PrivateHost, client: Client, vfs_type: str, option: str
) -> None:
    mark = f"mark{uuid.uuid4().hex}"
    connection = {
        "id": _uuid(),
        "connection": f"//127.0.0.1/{vfs_type}" if vfs_type == "cifs" else f"127.0.0.1:/{vfs_type}",
        "vfs_type": vfs_type,
        "mnt_options": f"{option}={mark}",
    }
    params = {"storagepoolID": engine.BLANK, "domainType": engine.POSIXFS, "connectionParams": [connection]}
    answer = await client.call("StoragePool.connectStorageServer", params, timeout_s=120)
    assert int(answer[0]["status"]) != 0
    assert mark not in json.dumps(answer)
    folders = ("/var/log", "/var/lib/vdsm", "/var/lib/vdsm-root", "/run/vdsm", "/run/vdsm-root")
    found = agent_host.run(["grep", "-rlaF", mark, *folders], check=False)
    assert (found.stdout, found.returncode) == (b"", 1)
