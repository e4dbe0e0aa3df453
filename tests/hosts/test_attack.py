# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's user tries to become root by way of the root helper: seconds here, ten minutes in ``make soak``."""

import json
import os
import subprocess
import sys
import tempfile

import pytest

from contrib.lab.spec import CHECKOUT
from tests.soak import SOAK

SECONDS = 600 if SOAK else 6


@pytest.mark.cost(9)
@pytest.mark.timeout(SECONDS + 60)
def test_the_agents_user_gains_nothing_from_the_root_helper() -> None:
    with tempfile.TemporaryDirectory(prefix="vdsm-attack-") as folder:
        os.chmod(folder, 0o755)
        argv = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, "-m", "tests.hosts.attack"]
        done = subprocess.run(
            [*argv, f"{folder}/ground", str(SECONDS)], cwd=CHECKOUT, check=True, capture_output=True, text=True
        )
    told = json.loads(done.stdout)
    assert told["gained"] == []
    # it was a fight: the helper did what it may, and user 36 had its way in its own folders
    assert told["calls granted"] > 10 and told["calls refused"] > 10 and told["exchanges done"] > 100
