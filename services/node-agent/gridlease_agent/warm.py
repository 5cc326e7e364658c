"""Keeps sandboxes made ahead: as many as are wished for and fit, and hands them to leases.

``turn`` brings what is there to what should be; ``choose`` and ``release`` are the reconciler's.
A row is on disk before its sandbox is made, and is deleted, with the lease's STARTING row or by
itself, before the sandbox is anybody else's or is ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Iterable, Mapping

from gridlease_kernel.faults import Fault, Precondition

from gridlease_agent.book import Bell, Book
from gridlease_agent.domain import warm
from gridlease_agent.domain.spool import Phase, Spool, Warm, WarmKind
from gridlease_agent.domain.task import Task, Tenancy
from gridlease_agent.images.tasks import TaskImages
from gridlease_agent.ports import Environments, Files, Host, Preload, Prepared
from gridlease_agent.prepare import Preparer, joined
from gridlease_agent.runtimes.holding import Holding
from gridlease_agent.runtimes.spec import TASK_ID, SandboxSpec, uid_base
from gridlease_agent.runtimes.states import Deadline

_LOG = logging.getLogger(__name__)
_WAIT_MS = 600_000  # one that its agent does not come back to ends by itself
_EXTEND_S = 120.0
_LOOK_S, _CALM_S = 0.1, 15.0
_FETCH_AGAIN_S = 300.0
_TRIES, _TRY_AGAIN_S = 2, 600.0
_LEAST_ROOM = 2 << 30  # nothing that was used leaves for what may be


class WarmPool:
    """One node's. ``holding``: None where the host cannot; then only files are kept at hand."""

    def __init__(
        self,
        book: Book,
        host: Host,
        holding: Holding | None,
        files: Files,
        preparer: Preparer,
        environments: Environments,
        images: TaskImages | None,
        bounds: warm.Bounds,
    ) -> None:
        self._book = book
        self._host = host
        self._holding = holding
        self._files = files
        self._preparer = preparer
        self._environments = environments
        self._images = images
        self._bounds = bounds
        self._preloads: tuple[Preload, ...] = ()
        self._wishes: tuple[warm.Wish, ...] = ()
        self._runtimes: dict[str, Prepared] = {}
        self._waiting: frozenset[str] = frozenset()
        self._leaving: set[str] = set()  # a lease has it, and its folder may not have moved yet
        self._extended_s: dict[str, float] = {}
        self._fetched: dict[str, tuple[float, str]] = {}
        rows = book.spool.rows.values()
        self._begun = [x.lease_id for x in rows if x.phase is Phase.STARTING and x.ready_ns is None]
        self._failed: dict[WarmKind, tuple[int, float]] = {}
        self.bell = Bell()

    @property
    def waiting(self) -> frozenset[str]:
        """Those that a lease could take, as last seen."""
        return self._waiting

    def wish(self, preloads: Iterable[Preload]) -> None:
        """What the scheduler would have at hand, the most wanted first."""
        told = tuple(preloads)
        if told != self._preloads:
            self._preloads = told
            self.bell.ring()

    async def run(self) -> None:
        """Until cancelled."""
        abandoned = False
        while True:
            settled = True
            try:
                if not abandoned:
                    await self._abandon()
                    abandoned = True
                if self._idle():
                    await self._fetch()
                settled = await self.turn()
            except (Fault, OSError) as trouble:  # the next turn looks again
                _LOG.warning("sandboxes ahead: %s", trouble)
            await self.bell.wait(_CALM_S if settled else _LOOK_S)

    def _idle(self) -> bool:
        """Nobody waits for a start: leases go first."""
        rows = self._book.spool.rows.values()
        return not any(
            row.phase is Phase.KNOWN or (row.phase is Phase.STARTING and row.ready_ns is None)
            for row in rows
        )

    async def _abandon(self) -> None:
        """Leases of an agent that died while one became theirs."""
        begun = self._begun
        if self._holding is None or not begun:
            return
        for lease_id in await asyncio.to_thread(self._holding.abandon, begun):
            _LOG.warning("a start was begun and not ended", extra={"lease": lease_id})

    # -- files --------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        """The images that are wished for, one after another, as far as there is room."""
        now_s = self._host.now().boottime_ns / 1e9
        wishes: list[warm.Wish] = []
        for preload in self._preloads:
            try:
                wishes += await self._resolved(preload, now_s)
            except (Fault, OSError) as trouble:
                _LOG.info("%s is not at hand: %s", preload.image or preload.runtime, trouble)
        self._wishes = tuple(wishes)

    async def _resolved(self, preload: Preload, now_s: float) -> list[warm.Wish]:
        digest, folder = "", ""
        if preload.image:
            digest = await self._digest(preload.image, now_s)
            if not digest:
                return []
        if preload.runtime:
            found = self._environments.resolve(preload.runtime)
            folder = found.folder
            self._runtimes[folder] = found
        made = [(preload.created, ()), (preload.frozen if preload.modules else 0, preload.modules)]
        return [
            warm.Wish(
                WarmKind(
                    preload.tenant, digest, folder, modules, preload.cpu_milli,
                    preload.memory_bytes, preload.disk_bytes,
                ),
                count,
            )
            for count, modules in made
            if count > 0 and preload.tenant
        ]  # fmt: skip

    async def _digest(self, image: str, now_s: float) -> str:
        """The image's, once it is here; "" where it is not, and nothing makes room for it."""
        if self._images is None:
            return ""
        known = self._fetched.get(image)
        if known is not None and now_s - known[0] < _FETCH_AGAIN_S:
            return known[1]
        self._fetched[image] = (now_s, "")
        if await self._images.room() < _LEAST_ROOM:
            return ""
        digest = await self._images.fetch(image)
        await self._images.held()
        self._fetched[image] = (now_s, digest)
        return digest

    # -- sandboxes ----------------------------------------------------------------------------

    async def turn(self) -> bool:
        """One look, and what follows; whether nothing more is to be done for now."""
        if self._holding is None:
            return True
        seen = {x.warm_id: x.being for x in await asyncio.to_thread(self._holding.seen)}
        boot_id = self._host.now().boot_id
        spool = self._book.spool
        mine = {k: v for k, v in seen.items() if k not in self._leaving}
        found = warm.plan(spool.warm, mine, self._wishes, self._bounds, boot_id)
        before = self._waiting
        self._waiting = frozenset(k for k in found.keep if seen.get(k) is warm.Being.WAITING)
        for warm_id in sorted(self._waiting - before):
            _LOG.info("a sandbox waits for a lease", extra={"warm": warm_id})
        gone = True
        self._note_failed(spool, before, seen)
        for warm_id in found.drop:
            gone = await self._drop(warm_id) and gone
        await self._extend(found.keep)
        make = [kind for kind in found.make if self._may(kind)]
        if make and gone and self._idle():
            await self._make(make[0])
        return gone and not make and len(self._waiting) == len(found.keep)

    def _note_failed(
        self, spool: Spool, waited: frozenset[str], seen: Mapping[str, warm.Being]
    ) -> None:
        """Kinds that end before they wait, as where a module is missing, are left for a while."""
        now_s = self._host.now().boottime_ns / 1e9
        for warm_id, row in spool.warm.items():
            if seen.get(warm_id) is warm.Being.OVER and warm_id not in waited:
                self._failed[row.kind] = (self._failed.get(row.kind, (0, 0.0))[0] + 1, now_s)

    def _may(self, kind: WarmKind) -> bool:
        times, at_s = self._failed.get(kind, (0, 0.0))
        later = self._host.now().boottime_ns / 1e9 - at_s >= _TRY_AGAIN_S
        return times < _TRIES or later

    async def _drop(self, warm_id: str) -> bool:
        assert self._holding is not None
        await self._book.change(lambda spool: warm.without(spool, warm_id))
        if warm_id in self._leaving:  # a lease took it while the row was being deleted
            return True
        self._extended_s.pop(warm_id, None)
        return await asyncio.to_thread(self._holding.drop, warm_id)

    async def _extend(self, keep: Iterable[str]) -> None:
        assert self._holding is not None
        now_s = self._host.now().boottime_ns / 1e9
        for warm_id in keep:
            if now_s - self._extended_s.get(warm_id, 0.0) >= _EXTEND_S:
                later = Deadline.after(_WAIT_MS, 0)
                if warm_id in self._book.spool.warm:
                    await asyncio.to_thread(self._holding.extend, warm_id, later)
                    self._extended_s[warm_id] = now_s

    async def _make(self, kind: WarmKind) -> None:
        assert self._holding is not None
        warm_id = f"{warm.PREFIX}{secrets.token_hex(8)}"
        row = Warm(warm_id, kind, self._host.now().boot_id)
        await self._book.change(lambda spool: warm.made(spool, row))
        os.close(await asyncio.to_thread(self._files.prepare, warm_id, ()))
        root = None
        if kind.root and self._images is not None:
            root = await self._images.stand(kind.root, warm_id)
        prepared = self._runtimes[kind.environment] if kind.environment else None
        slot = await self._preparer.slot(warm_id)
        spec = SandboxSpec(
            warm_id,
            ("true",),
            uid_base=uid_base(slot),
            memory_bytes=warm.held_bytes(kind),
            cpu_milli=kind.cpu_milli,
            disk_bytes=kind.disk_bytes,
            environment=kind.environment,
            environment_env=joined(prepared, root),
            root=kind.root,
            user=(root.user if root else 0) or TASK_ID,
        )
        try:
            later = Deadline.after(_WAIT_MS, 0)
            await asyncio.to_thread(self._holding.make, warm_id, spec, later, kind.modules)
        finally:
            self._preparer.forget(warm_id)
        self._extended_s[warm_id] = self._host.now().boottime_ns / 1e9

    # -- leases -------------------------------------------------------------------------------

    def choose(self, spool: Spool, task: Task, spec: SandboxSpec) -> str | None:
        """The one that this lease takes; the caller deletes its row with the STARTING row."""
        if self._holding is None or not self._waiting:
            return None
        kind = WarmKind(
            task.tenant, spec.root, spec.environment, (), spec.cpu_milli, spec.memory_bytes,
            spec.disk_bytes,
        )  # fmt: skip
        alone = spec.devices or spec.network or spec.core_tag or task.tenancy is not Tenancy.SHARED
        first = task.commands[0].split()[:1] if len(task.commands) == 1 else []
        need = warm.Need(kind, bool(alone), first in (["python"], ["python3"]))
        found = warm.choose(spool.warm, self._waiting - self._leaving, need)
        if found is not None:
            self._leaving.add(found)
        return found

    async def release(
        self, warm_id: str, spec: SandboxSpec, commands: tuple[str, ...], deadline: Deadline
    ) -> bool:
        """The sandbox is the lease's and runs; False: nothing has happened, start it as any other.

        Raises:
            Fault, OSError: it may have begun, or not: look.
        """
        assert self._holding is not None
        self._waiting -= {warm_id}
        try:
            await asyncio.to_thread(self._holding.release, warm_id, spec, commands, deadline)
        except Precondition as refusal:
            if refusal.reason != "NOT_WARM":
                raise
            _LOG.info("it does not wait any more: %s", refusal, extra={"lease": spec.lease_id})
            return False
        else:
            _LOG.info("a sandbox made ahead is used", extra={"lease": spec.lease_id})
            return True
        finally:
            self._leaving.discard(warm_id)
            self._extended_s.pop(warm_id, None)
            self.bell.ring()
