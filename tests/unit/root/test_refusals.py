# SPDX-License-Identifier: GPL-2.0-or-later
"""What the root helper refuses it names: the parameter, what came, what was expected. Its limits are exact."""

import os

import pytest

from vdsm.common.errors import InvalidParameter
from vdsm.common.paths import Paths
from vdsm.root.server import mount_rules
from vdsm.root.server.registry import Helper, NoSuchRootVerb, dispatch, root_verb
from vdsm.root.server.verbs import PARTS

assert PARTS  # their verbs are declared

SPEC = "expected a device, a file or server:/path of up to 512"
PATH = "expected an absolute path or server:/path"
DOTS = "a path must not hold '.' or '..'"
NAME = "its folder's name must have 2 to 240 bytes"
TYPE = "no file system of that type may be mounted"
OPTION = "this mount option is not allowed"
SECRET = "a secret is one line of printable characters"
FOLDER = "expected a local folder's absolute path"
NO_TEXT = "Expected `str`, got `int` - at `$.mount_id`"
ID = "expected the name of a mount's folder"


@pytest.fixture
def helper(tmp_path):
    paths = Paths(repository=str(tmp_path / "rhev"), root_state=str(tmp_path / "state"), hooks=str(tmp_path / "hooks"))
    os.makedirs(paths.mounts)
    return Helper(paths, os.getuid(), os.getgid())


def mount(spec="srv:/x", vfs_type="nfs", options=""):
    return "Mount.define", {"spec": spec, "vfs_type": vfs_type, "options": options}


def hook(point="before_network_setup", text="{}", timeout_s=1.0, **more):
    return "Hooks.run", {"point": point, "text": text, "timeout_s": timeout_s, **more}


@pytest.mark.parametrize(
    ("call", "name", "got", "reason"),
    [
        (mount(spec="a b:/x"), "spec", "'a b:/x'", SPEC),
        (mount(spec="nowhere"), "spec", "'nowhere'", PATH),
        (mount(spec="srv:/a/../b"), "spec", "'srv:/a/../b'", DOTS),
        (mount(spec="/./b"), "spec", "'/./b'", DOTS),
        (mount(spec="//"), "spec", "'/'", NAME),
        (mount(vfs_type="fuse"), "vfs_type", "'fuse'", TYPE),
        (mount(options="soft,suid"), "options", "'suid'", OPTION),
        (mount(options="soft,Secret=a/b"), "options", "Secret=...", "nfs has no way to get this secret unseen"),
        (mount(options="a" * 1025), "options", "1025 characters", "longer than 1024 characters"),
        (mount(vfs_type="cifs", options="pass=a\nb"), "options", "pass=...", SECRET),
        (mount(vfs_type="cifs", options="username=a%b"), "options", "username=...", "give the password by password="),
        (("Mount.mount", {"mount_id": "a/b"}), "mount_id", "'a/b'", ID),
        (("Mount.unmount", {"mount_id": ".."}), "mount_id", "'..'", ID),
        (("Mount.unmount", {"mount_id": "."}), "mount_id", "'.'", ID),
        (("Pool.make_folder", {"pool_id": "mnt"}), "pool_id", "'mnt'", "expected a UUID"),
        (("LocalFolder.link", {"folder": "srv"}), "folder", "'srv'", FOLDER),
        (("LocalFolder.link", {"folder": "/srv/../etc"}), "folder", "'/srv/../etc'", FOLDER),
        (("LocalFolder.unlink", {"folder": "/"}), "folder", "'/'", FOLDER),
        (hook("before_vdsm_start", "x"), "text", "1 characters", "before_vdsm_start has no document"),
        (hook(text="x" * (1 << 24)), "text", "16777216 characters", "at most 8388608 are allowed"),
        (hook(timeout_s=0.0), "timeout_s", "0.0", "more than 0 and at most 3600 seconds"),
        (hook(timeout_s=3600.5), "timeout_s", "3600.5", "more than 0 and at most 3600 seconds"),
        (hook(script_timeouts_s={"10": -1.0}), "timeout_s", "-1.0", "more than 0 and at most 3600 seconds"),
        (("Mount.mount", {}), "Mount.mount", "the parameters", "Object missing required field `mount_id`"),
        (("Mount.mount", {"mount_id": 1}), "Mount.mount", "the parameters", NO_TEXT),
    ],
)
async def test_a_refusal_says_what_came_and_what_was_expected(helper, call, name, got, reason):
    with pytest.raises(InvalidParameter) as e:
        await dispatch(helper, *call)
    assert (e.value.name, e.value.value, e.value.reason) == (name, got, reason)


async def test_a_document_of_another_kind_is_refused_for_a_hook(helper):
    with pytest.raises(InvalidParameter, match=r"'text'.*before_network_setup takes JSON"):
        await dispatch(helper, *hook(text="{"))


async def test_a_hook_may_have_no_document(helper):
    assert await dispatch(helper, *hook(text="")) == {"text": "", "record": None}


async def test_the_longest_times_of_hooks_are_taken(helper):
    answer = await dispatch(helper, *hook(timeout_s=3600.0, script_timeouts_s={"10": 0.5, "20": 3600.0}))
    assert answer == {"text": "{}", "record": None}


@pytest.mark.parametrize(
    ("length", "is_taken"), [(mount_rules.MAX_NAME, True), (mount_rules.MAX_NAME + 1, False)], ids=["most", "more"]
)
async def test_names_of_folders_have_a_limit(helper, length, is_taken):
    name = "_" + "x" * (length - 1)
    calls = [
        mount(spec=name.replace("_", "/")),
        ("LocalFolder.link", {"folder": name.replace("_", "/")}),
        ("Mount.unmount", {"mount_id": name}),
    ]
    for verb, params in calls:
        if is_taken:
            await dispatch(helper, verb, params)
        else:
            with pytest.raises(InvalidParameter):
                await dispatch(helper, verb, params)


@pytest.mark.parametrize("characters", [512, 513])
def test_a_specification_has_a_limit(characters):
    spec = "s:/" + "/" * (characters - 5) + "xy"
    if characters == 512:
        assert mount_rules.check_spec(spec) == "s:/xy"
    else:
        with pytest.raises(InvalidParameter, match="up to 512"):
            mount_rules.check_spec(spec)


async def test_options_and_secrets_have_limits(helper):
    await dispatch(helper, *mount(options="a" * 1024))
    await dispatch(helper, *mount("srv:/y", "cifs", "pass=" + "a" * 1024))
    with pytest.raises(InvalidParameter):
        await dispatch(helper, *mount("srv:/y", "cifs", "pass=" + "a" * 1025))


@pytest.mark.parametrize(
    ("vfs_type", "options", "kept"),
    [
        ("cifs", "username=a,domain=b", ["username=a", "domain=b"]),
        ("nfs", "username=a%b", ["username=a%b"]),
        ("cifs", "prefixpath=a%b", ["prefixpath=a%b"]),
        ("cifs", "credentials=/etc/share,ro", ["credentials=/etc/share", "ro"]),
        ("smb3", "cred=/etc/share", ["cred=/etc/share"]),
        ("ceph", "name=a,secretfile=/etc/key", ["name=a", "secretfile=/etc/key"]),
        ("ceph", "secretfile=", ["secretfile="]),
        ("ext4", "loop", ["loop"]),
        ("ext4", "data=ordered,a=b=c", ["data=ordered", "a=b=c"]),
    ],
)
async def test_what_is_allowed_is_kept_in_order(helper, vfs_type, options, kept):
    await dispatch(helper, *mount(vfs_type=vfs_type, options=options))
    (record,) = (await dispatch(helper, "Mount.list", {})).values()
    assert record["options"] == [*kept, "nosuid", "nodev"]


@pytest.mark.parametrize("option", ["device=x", "source=x", "device", "subtype"])
async def test_options_that_name_another_device_are_refused_with_and_without_a_value(helper, option):
    with pytest.raises(InvalidParameter, match="not allowed"):
        await dispatch(helper, *mount(vfs_type="ext4", options=option))


async def test_records_are_roots_alone(helper, tmp_path):
    before = os.umask(0)
    try:
        await dispatch(helper, *mount())
    finally:
        os.umask(before)
    assert (tmp_path / "state" / "mounts").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "mounts" / "srv:_x.json").stat().st_mode & 0o777 == 0o600


async def test_what_is_no_record_is_not_listed(helper, tmp_path):
    await dispatch(helper, *mount())
    folder = tmp_path / "state" / "mounts"
    record = (folder / "srv:_x.json").read_bytes()
    (folder / ".srv:_y.json").write_bytes(record)
    (folder / "srv:_z").write_bytes(record)
    assert list(await dispatch(helper, "Mount.list", {})) == ["srv:_x"]


def test_a_verb_is_declared_once():
    with pytest.raises(ValueError, match=r"Mount\.list is declared twice"):
        root_verb("Mount.list", None)(None)


async def test_a_verb_that_is_unknown_is_named(helper):
    with pytest.raises(NoSuchRootVerb) as e:
        await dispatch(helper, "Mount.all", {})
    assert str(e.value) == "The root helper has no verb 'Mount.all'"
