"""Makes what a task has used fit for the next: outputs kept, scratch wiped, devices scrubbed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Fault

from gridlease_agent.book import Book
from gridlease_agent.devices.scrubbed import DeviceKeeping, NothingKept
from gridlease_agent.domain import lease, release
from gridlease_agent.domain.release import Release
from gridlease_agent.domain.spool import Wiped
from gridlease_agent.domain.task import SCRATCH
from gridlease_agent.ports import Files
from gridlease_agent.runtimes.states import Absent, SandboxRunner

_LOG = logging.getLogger(__name__)
_PAUSE_S = 2.0
_PRUNE_S = 3600.0
# What goes with a lease's sandbox, and how we know. The kernel zeroes memory before it hands it on.
_WITH_SCRATCH = (
    ("scratch", "deleted"),
    ("shm", "namespace-ended"),
    ("secrets", "namespace-ended"),
)


class Scrubber:
    """Scrubs, verifies, and puts it on record, in this order."""

    def __init__(
        self,
        book: Book,
        sandboxes: SandboxRunner,
        files: Files,
        clock: Clock,
        *,
        emulated: bool = False,
        keeper: DeviceKeeping | None = None,
    ) -> None:
        self.before: Callable[[str], Awaitable[None]] | None = None  # to one in quarantine
        self._book = book
        self._sandboxes = sandboxes
        self._files = files
        self._clock = clock
        self._keeper = keeper or NothingKept(emulated=emulated)
        self._kept = keeper is not None or emulated
        self._lacks = dict(self._keeper.lacks())
        self._releases: dict[str, Release] = {}
        self._next_ns: dict[str, int] = {}

    def possible(self, devices: Collection[str]) -> frozenset[str]:
        """Those that this node knows how to scrub, and whose turn it is; the others stay dirty,
        and nothing starts on them [T 17]."""
        now_ns = self._clock.boottime_ns()
        return frozenset(
            device
            for device in devices
            if device.startswith(SCRATCH)
            or (self._kept and device not in self._lacks and self._next_ns.get(device, 0) <= now_ns)
        )

    def ailments(self) -> Mapping[str, str]:
        """Devices that cannot be lent because they cannot be wiped, or were not, and why."""
        failed = {
            device: f"scrub-failed: {one.trouble}"
            for device, one in self._releases.items()
            if one.trouble
        }
        return {device: f"no-scrub: {why}" for device, why in self._lacks.items()} | failed

    async def prune(self) -> None:
        """Until cancelled: what is kept of tasks leaves when its time is over."""
        while True:
            now_ns = round(self._clock.wall().timestamp() * 1e9)
            await asyncio.to_thread(self._files.prune, now_ns=now_ns)
            await asyncio.sleep(_PRUNE_S)

    async def scrub(self, devices: Collection[str]) -> None:
        """What could not be scrubbed stays dirty and is tried again after a pause."""
        folders = sorted(device for device in devices if device.startswith(SCRATCH))
        clean = [each for each in folders if await self._wipe(each.removeprefix(SCRATCH))]
        if clean:
            proofs = {each: self._scratch_proofs() for each in clean}
            await self._book.change(lambda spool: lease.scrubbed(spool, clean, proofs))
        for device in sorted(set(devices) - set(folders)):
            await self._scrub(device)
        if len(clean) < len(folders):
            await asyncio.sleep(_PAUSE_S)

    def _scratch_proofs(self) -> tuple[Wiped, ...]:
        now_ns = self._now_ns()
        return tuple(Wiped(what, method, now_ns) for what, method in _WITH_SCRATCH)

    def _now_ns(self) -> int:
        return round(self._clock.wall().timestamp() * 1e9)

    async def _scrub(self, device: str) -> None:
        """One device through its stages; the step named only those that no sandbox is on."""
        before = self._releases.get(device) or release.recovered(dirty=True, held=False)
        if self.before is not None:
            await self.before(device)
        under_way = release.scrubbing(before)
        self._releases[device] = under_way
        answer = await asyncio.to_thread(self._keeper.scrub, device)
        if not answer.method:
            after = self._releases[device] = release.failed(under_way, answer.trouble)
            self._next_ns[device] = self._clock.boottime_ns() + release.pause_ms(after) * 1_000_000
            facts = {"device": device, "tries": after.tries}
            _LOG.error("a device could not be scrubbed: %s", after.trouble, extra=facts)
            return
        proof = Wiped(device, answer.method, self._now_ns())
        verified = release.verified(under_way, proof)
        await self._book.change(lambda spool: lease.scrubbed(spool, [device], {device: (proof,)}))
        release.freed(verified)
        self._releases.pop(device, None)
        self._next_ns.pop(device, None)
        _LOG.info("a device was scrubbed", extra={"device": device, "method": answer.method})

    async def _wipe(self, lease_id: str) -> bool:
        task = self._book.task(lease_id)
        outputs = task.outputs if task else ()
        try:
            await asyncio.to_thread(self._files.keep, lease_id, outputs)
            if not isinstance(self._sandboxes.inspect(lease_id), Absent):
                await asyncio.to_thread(self._sandboxes.remove, lease_id)
            await asyncio.to_thread(self._files.discard, lease_id)
        except (Fault, OSError) as trouble:
            _LOG.error(
                "a scratch folder could not be wiped: %s", trouble, extra={"lease": lease_id}
            )
            return False
        return lease_id not in self._files.folders()
