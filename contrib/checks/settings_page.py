# SPDX-License-Identifier: GPL-2.0-or-later
"""``docs/settings.md``: every key that the agent reads, from the tables of `vdsm.config`.

``python -m contrib.checks.settings_page`` writes it; a test fails when page and code differ.
"""

from __future__ import annotations

from vdsm.config import FOREIGN, HOOK_TIMEOUTS, OURS, Key, Settings

_HEAD = """# Settings

Written by `make openrpc`. The agent reads, in this order, later ones win:

1. `/etc/vdsm/vdsm.conf`
2. `*.conf` of `/usr/lib/vdsm/vdsm.conf.d`, then of `/run/vdsm/vdsm.conf.d` and `/etc/vdsm/vdsm.conf.d`, each by name

Settings are read once, when the agent starts. `vdsm doctor` shows what is wrong with a file, by its line. An example:

```ini
# /etc/vdsm/vdsm.conf.d/50-mine.conf
[agent]
log_level = DEBUG

[hook_timeouts]
before_vm_start = 300
```

## Sections of the field

An engine writes some of them, and files of a VDSM host may be carried over: what has no meaning here is
warned about in the log, with file and line, and ignored.

"""
_OWN = """
## Sections of this agent

An unknown key or a bad value in one of them stops the agent's start, with file, line and what was expected.

"""
_TAIL = f"""
Besides these, `[{HOOK_TIMEOUTS}]` has one key for each hook point, or for one script of it as `point/script`, whose
value is its limit in seconds ([hooks](hooks.md)). A name that is no point's is warned about, in the log and by `vdsm
doctor`.
"""


def page() -> str:
    """The page as it is checked in."""
    return _HEAD + _table(FOREIGN) + _OWN + _table(OURS) + _TAIL


def _table(sections: dict[str, dict[str, Key]]) -> str:
    rows = "| section | key | default | meaning |\n|---|---|---|---|\n"
    defaults = Settings()
    for section, keys in sections.items():
        for name, key in keys.items():
            rows += f"| `[{section}]` | `{name}` | {_shown(getattr(defaults, key.setting))} | {key.meaning} |\n"
    return rows


def _shown(value: object) -> str:
    if isinstance(value, frozenset):
        value = " ".join(sorted(value))
    if isinstance(value, bool):
        value = "true" if value else "false"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"`{text}`" if text else "empty"


if __name__ == "__main__":
    print(page(), end="")
