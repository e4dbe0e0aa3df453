# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests' own fixture: in this order, the second one sees what the first one left."""

import logging

LEVELS = {}


def test_a_test_may_change_levels():
    LEVELS[""] = logging.getLogger().level
    logging.getLogger().setLevel("CRITICAL")
    logging.getLogger("vdsm.rpc").setLevel("CRITICAL")
    logging.getLogger("vdsm.new.one").setLevel("CRITICAL")
    logging.disable(logging.CRITICAL)


def test_the_next_one_finds_them_as_they_were():
    assert logging.getLogger().level == LEVELS[""]
    assert logging.getLogger("vdsm.rpc").level == logging.NOTSET
    assert logging.getLogger("vdsm.new.one").level == logging.NOTSET
    assert logging.getLogger("vdsm.rpc").isEnabledFor(logging.CRITICAL)
