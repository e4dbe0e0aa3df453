# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters of storage verbs that would be ignored are refused by name, before anything is touched."""

import pytest

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
