# SPDX-License-Identifier: GPL-2.0-or-later
"""Every wrong input to every verb is refused by name before the verb runs."""

import pytest

from contrib.lab.wrong_input import wrong_inputs
from vdsm.api import registry
from vdsm.api.params import BadParameter, Unknown, convert

VERBS = registry.load()


@pytest.mark.parametrize("name", sorted(VERBS))
def test_wrong_input_is_refused_by_name(name):
    for what, params, named in wrong_inputs(VERBS[name].params):
        with pytest.raises(BadParameter) as caught:
            convert(name, VERBS[name].params, params, Unknown.REFUSE)
        assert f"'{named}" in str(caught.value), what
