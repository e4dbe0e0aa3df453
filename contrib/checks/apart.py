# SPDX-License-Identifier: GPL-2.0-or-later
"""Changed code in processes of its own, for `contrib.checks.mutants`: a plugin of pytest, loaded there only.

Tests start processes: the SPM, the command line, and programs under a Python that has nothing but the standard library
(the I/O helper of a domain, the steps with mounts). mutmut is not loaded there. `TRAMPOLINE` takes its place: such a
process learns from its environment which change is tried, and writes down which of its functions it reaches. The
plugin hands both on.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from inspect import CO_COROUTINE

import pytest

from vdsm.common import commands

# of a kind that every process of ours hands on
_CHOSEN, _REACHED = "VDSM_MUTANT", "VDSM_MUTANTS_REACHED"

# put into each changed file by mutmut, in place of its own import
TRAMPOLINE = f"""
try:
    from mutmut.mutation.trampoline import wrap_in_trampoline as _mutmut_mutated, MutantDict
except ImportError:
    import functools as _mutmut_functools, os as _mutmut_os
    MutantDict = dict
    def _mutmut_mutated(mutants, is_classmethod=False):
        module = __file__.rpartition("/mutants/")[2].removesuffix(".py").replace("/", ".")
        def choose():
            asked, chosen = _mutmut_os.environ.get("{_CHOSEN}", ""), mutants["_mutmut_orig"]
            if asked == "stats":
                with open(_mutmut_os.environ["{_REACHED}"], "a") as reached:
                    reached.write(module + "." + chosen.__name__.partition("__mutmut_")[0] + "\\n")
            elif asked.rpartition(".")[0] == module:
                chosen = mutants.get(asked.rpartition(".")[2], chosen)
            return chosen
        def wrap(function):
            def call(*args, **kwargs):
                chosen = choose()
                if is_classmethod:
                    return getattr(args[0], chosen.__name__)(*args[1:], **kwargs)
                return chosen(*args, **kwargs)
            async def wait(*args, **kwargs):
                return await call(*args, **kwargs)
            return _mutmut_functools.wraps(function)(wait if function.__code__.co_flags & {CO_COROUTINE} else call)
        return wrap
"""


_reached = tempfile.NamedTemporaryFile("r", prefix="vdsm-reached-", encoding="utf-8")  # noqa: SIM115 (for the process)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    for environment in (os.environ, commands.ENVIRONMENT):
        environment.update({_CHOSEN: os.environ.get("MUTANT_UNDER_TEST", ""), _REACHED: _reached.name})


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Before mutmut asks which functions the test reached."""
    if names := set(_reached.read().split()):
        stats = importlib.import_module("mutmut.stats")
        for name in names:
            stats.record_trampoline_hit(name)
