# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes a sample of all VMs every 15 s, and soon after a VM began to run.

    one call for all -> samples -> states that differ are told -> figures are encoded, in slices
          | hangs (15 s) or fails
          v
    VM by VM, the oldest sample first: `AT_ONCE` at a time, none begun after `LONGEST_S`

So one VM that hangs costs its own figures, and the next sample begins while it still does. Without VMs nothing is
asked. One sample at a time. Whatever fails, there is a next one; each kind of failure is logged once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

from vdsm.virt.errors import DomainMissing, HypervisorLost, TooManyStuckCalls
from vdsm.virt.hypervisor import DomainState, Sampled, StatisticsSource, Stats
from vdsm.virt.report import Shown
from vdsm.virt.states import VmState
from vdsm.virt.stats.answers import Answers
from vdsm.virt.stats.samples import Samples
from vdsm.virt.stats.troubles import Troubles, log

PERIOD_S = 15.0
AT_ONCE = 2
LONGEST_S = 20.0
_SOONEST_S = 1.0
# what troubles are about, beside VMs
_ALL, _SAMPLER = "all VMs", "the sampler"
_AS = {DomainState.RUNNING: VmState.UP, DomainState.PAUSED: VmState.PAUSED}

Seen = Callable[[str, DomainState | None, str], None]


class Sampler:
    def __init__(
        self,
        source: StatisticsSource,
        samples: Samples,
        answers: Answers,
        running: Callable[[], Mapping[str, Shown]],
        *,
        seen: Seen = lambda _vm_id, _state, _reason: None,
        period_s: float = PERIOD_S,
        longest_s: float = LONGEST_S,
    ) -> None:
        """``running`` tells which VMs of ours run now; ``seen`` hears of a VM that libvirt has in another state,
        None when it tells of none."""
        self._source = source
        self._samples = samples
        self._answers = answers
        self._running = running
        self._seen = seen
        self._period_s = period_s
        self._longest_s = longest_s
        self._soon = asyncio.Event()
        self._troubles = Troubles()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="vm statistics")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def soon(self) -> None:
        """A fresh sample is wanted; many wishes within a second are one sample."""
        self._soon.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._sample()
                self._troubles.over(_SAMPLER)
            except Exception as e:  # noqa: BLE001 - a defect must not end the statistics of all
                self._troubles.tell(_SAMPLER, "statistics of VMs", e)
            try:
                async with asyncio.timeout(self._period_s):
                    await self._soon.wait()
                await asyncio.sleep(min(_SOONEST_S, self._period_s))  # gather wishes
            except TimeoutError:
                pass
            self._soon.clear()

    async def _sample(self) -> None:
        if running := self._running():
            stats = await self._all()
            if stats is None:
                await self._one_by_one(sorted(running.values(), key=self._age_key))
            else:
                for vm in self._running().values():
                    if vm.vm_id in stats:
                        self._take(vm, stats[vm.vm_id])
                    elif vm.vm_id in running:
                        self._miss(vm)
        running = self._running()
        self._samples.keep_only(running)
        self._troubles.keep_only({_ALL, _SAMPLER, *running})
        await self._answers.prepare(running.values())

    async def _all(self) -> Stats | None:
        """None when there is no answer."""
        try:
            stats = await self._source.statistics()
        except Exception as e:  # noqa: BLE001 - odd answers, too: VM by VM the others' are good
            self._troubles.tell(_ALL, "no statistics of all VMs at once, they are asked one by one", e)
            return None
        if self._troubles.over(_ALL):
            log.info("statistics of all VMs are told at once again")
        return stats

    def _age_key(self, vm: Shown) -> float:
        """The oldest sample first: of one that was not reached the last time."""
        return self._samples.answered_s(vm.vm_id) or 0.0

    async def _one_by_one(self, vms: list[Shown]) -> None:
        left = deque(vms)
        now = asyncio.get_running_loop().time
        until = now() + self._longest_s

        async def ask() -> None:
            while left and now() < until:
                if not await self._one(left.popleft()):
                    left.clear()

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))

    async def _one(self, vm: Shown) -> bool:
        """False when there is no point in asking for more."""
        try:
            sampled = await self._source.statistics_of(vm.vm_id)
        except (HypervisorLost, TooManyStuckCalls) as e:
            self._troubles.tell(_ALL, "no statistics", e)
            return False
        except DomainMissing:
            self._miss(vm)
            return True
        except Exception as e:  # noqa: BLE001 - whatever it is: it is this VM's
            self._troubles.tell(vm.vm_id, f"VM {vm.vm_id}: no statistics", e)
            return True
        self._take(vm, sampled)
        return True

    def _miss(self, vm: Shown) -> None:
        """It has ended, whoever did or did not tell."""
        if not vm.status.ending:
            self._seen(vm.vm_id, None, "")

    def _take(self, vm: Shown, sampled: Sampled) -> None:
        if vm.status.down:  # it ended while libvirt was asked
            return
        self._troubles.over(vm.vm_id)
        self._samples.take(vm.vm_id, sampled.counters)
        stored, state = vm.status.stored, sampled.state
        if state is not None and stored in _AS.values() and _AS.get(state) is not stored:
            self._seen(vm.vm_id, state, sampled.reason)
