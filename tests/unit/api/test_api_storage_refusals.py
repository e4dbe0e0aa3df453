# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters of storage verbs that would be ignored are refused by name, before anything is touched."""

import msgspec
import pytest

from storage.errors import DomainNameTooLong, PoolNameTooLong
from vdsm.api.codes import code_of
from vdsm.api.storage_domain import DomainCreate
from vdsm.common.ids import new_uuid

DOMAIN = {"storagedomainID": new_uuid()}
IMAGE = {**DOMAIN, "storagepoolID": new_uuid(), "imageID": new_uuid()}
DELETE = {"postZero": False, "force": False, "discard": True}


@pytest.mark.parametrize(
    ("verb", "params", "name", "code"),
    [
        ("Volume.delete", {**IMAGE, **DELETE, "volumeID": new_uuid()}, "discard", 349),
        ("Image.delete", {**IMAGE, **DELETE}, "discard", 349),
        ("Image.deleteVolumes", {**IMAGE, **DELETE, "volumeList": [new_uuid()]}, "discard", 349),
    ],
)
async def test_what_is_not_done_is_refused_by_its_name(shared_api, verb, params, name, code):
    error = (await shared_api.ask(verb, params))["error"]
    assert error["code"] == code
    assert f"'{name}'" in error["message"]


CREATE = {**DOMAIN, "domainType": 4, "typeArgs": "/srv/x", "name": "n"}


async def test_a_data_domain_without_a_version_is_refused_by_the_fields_default(shared_api):
    error = (await shared_api.ask("StorageDomain.create", {**CREATE, "domainClass": 1}))["error"]
    assert error["code"] == 394
    assert "version 0 can be made: its version is 3 or 4 or 5" in error["message"]


async def test_an_iso_domain_needs_no_version(shared_api):
    error = (await shared_api.ask("StorageDomain.create", {**CREATE, "domainClass": 2}))["error"]
    assert error["code"] == 360  # as far as its storage, which is not connected


def test_a_domain_has_room_for_as_many_hosts_as_the_fields():
    made = msgspec.convert({**CREATE, "domainClass": 1}, DomainCreate)
    assert (made.version, made.block_size, made.max_hosts) == (0, 512, 2000)


def test_names_that_are_too_long_have_the_fields_codes():
    assert [code_of(error) for error in (DomainNameTooLong, PoolNameTooLong)] == [387, 327]
