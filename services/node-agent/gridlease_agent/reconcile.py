"""Brings this node to what it should be: what is on disk and what is alive -> the next steps.

One loop looks at the sandboxes and takes the steps that ``domain.step`` names, in their order.
Preparing, settling and scrubbing run beside it, each at most once at a time for its subject.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_never

from gridlease_kernel.faults import Fault, Late, Unreachable

from gridlease_agent.book import Book
from gridlease_agent.domain import lease, meters, step, tenancy, warm
from gridlease_agent.domain.progress import Checkpoint, TaskReport
from gridlease_agent.domain.spool import Clocks, Deadline, ExitRecord, Phase, Row, Shim, Spool
from gridlease_agent.domain.task import Ending, Overtime, Task, end_reason, overtime, scratch
from gridlease_agent.ports import Files, Host
from gridlease_agent.prepare import Preparer
from gridlease_agent.runtimes.spec import SandboxSpec
from gridlease_agent.runtimes.states import (
    Absent,
    Exited,
    Running,
    SandboxRunner,
    SandboxState,
    Starting,
)
from gridlease_agent.runtimes.states import Deadline as ShimDeadline
from gridlease_agent.scrub import Scrubber
from gridlease_agent.settle import Settler
from gridlease_agent.spans import TaskSpans
from gridlease_agent.tick import tick
from gridlease_agent.warm import WarmPool
from gridlease_agent.watch import Watch

_LOG = logging.getLogger(__name__)
_STARTING_S = 0.02
_BUSY_S, _CALM_S = 0.5, 2.5
_IDLE_S = 10.0
_TICK_NS = 5_000_000_000
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.25, 5.0

Idle = Callable[[Row, Task, int], Overtime | None]  # whether nobody uses it, at a boottime


class Reconciler:
    """The node's own loop."""

    def __init__(
        self,
        book: Book,
        host: Host,
        sandboxes: SandboxRunner,
        files: Files,
        preparer: Preparer,
        settler: Settler,
        scrubber: Scrubber,
        watch: Watch,
        spans: TaskSpans,
        grace_ms: int,
        idle: Idle | None = None,
        parts: Mapping[str, str] | None = None,
        *,
        pool: WarmPool | None = None,
    ) -> None:
        self._book = book
        self._host = host
        self._sandboxes = sandboxes
        self._files = files
        self._preparer = preparer
        self._settler = settler
        self._scrubber = scrubber
        self._watch = watch
        self._spans = spans
        self._grace_ms = grace_ms
        self._idle = idle
        self._parts = parts or {}
        self._pool = pool
        self._kept_apart: set[str] = set()
        self.shims: dict[str, Shim] = {}
        self.cgroups: Mapping[str, str] = {}  # of the sandboxes that live
        self._ready: dict[str, SandboxSpec] = {}
        self._beside: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, int] = {}  # boottime by which it was told to be over
        self._ticked_ns = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.turn()
                await self._book.work.wait(self._pause_s())
        finally:
            for task in self._beside.values():
                task.cancel()
            if self._beside:
                await asyncio.wait(self._beside.values(), timeout=2.0)

    def _pause_s(self) -> float:
        rows = self._book.spool.rows.values()
        if any(row.phase is Phase.STARTING and row.ready_ns is None for row in rows):
            return _STARTING_S
        if not self.shims and all(row.gone for row in rows):
            return _IDLE_S
        now = self._host.now()
        halves_ns = [
            row.deadline.left_ns(now) - row.span_ms * 500_000
            for row in rows
            if row.deadline is not None and row.phase <= Phase.STARTING and not row.last
        ]
        next_half_s = min(halves_ns, default=10**18) / 1e9
        # A watched keeper's end rings; what has a longest duration is looked at in time for that.
        calm = all(one in self._watch and not self._limited(one) for one in self.shims)
        rest_s = _CALM_S if calm and self.shims else _BUSY_S
        return min(rest_s, next_half_s) if next_half_s > _STARTING_S else _BUSY_S

    def _limited(self, lease_id: str) -> bool:
        task = self._book.task(lease_id)
        return task is not None and bool(task.max_duration_ms or task.idle_stop_ms)

    async def turn(self) -> None:
        """Look once, and do what is due."""
        try:
            await self._look()
        except (Unreachable, Late) as trouble:  # tasks go on; nothing is decided blindly
            _LOG.warning("the sandboxes cannot be looked at: %s", trouble)
            return
        now = self._host.now()
        if now.boottime_ns - self._ticked_ns >= _TICK_NS:
            self._ticked_ns = now.boottime_ns
            await tick(self._book, self._host, self._sandboxes)
        self._prepare_what_is_known()
        asked = None if self._book.ask_billing else self._settler.asked_ns
        steps = step.next_steps(
            self._book.spool,
            now,
            self.shims,
            self._ready,
            asked,
            self._settler.retry_ms(),
            self._settler.report_ms(),
        )
        for one in steps:
            try:
                await self._take(one, now)
            except (Fault, OSError) as trouble:  # level-triggered: the next turn tries again
                _LOG.error("a step failed: %s", trouble, extra={"step": type(one).__name__})
        await self._end_overtime(now)

    # -- what is alive --------------------------------------------------------------------------

    async def _look(self) -> None:
        alive: dict[str, Shim] = {}
        starting = {k for k, row in self._book.spool.rows.items() if row.phase is Phase.STARTING}
        seen = {one.lease_id: one for one in await asyncio.to_thread(self._sandboxes.look)}
        for lease_id in sorted({*seen, *starting}):
            state = seen[lease_id].state if lease_id in seen else Absent()
            if isinstance(state, Starting | Running):
                alive[lease_id] = await self._shim(lease_id, state)
                self._watch.add(lease_id, seen[lease_id].keeper_pid)
            if lease_id in starting:
                await self._note(self._book.spool.rows[lease_id], state)
        self.shims = alive
        self.cgroups = {lease_id: seen[lease_id].cgroup for lease_id in alive}
        # Left to their keepers: only who started them knows whether their work is wanted.
        self._book.strangers = frozenset(alive.keys() - self._book.spool.rows.keys())

    async def _shim(self, lease_id: str, state: Starting | Running) -> Shim:
        known = self.shims.get(lease_id)
        row = self._book.spool.rows.get(lease_id)
        ready_ns = state.started_boottime_ns if isinstance(state, Running) else None
        if known is not None:
            devices, deadline = known.devices, known.deadline
        else:
            devices = row.devices if row else (scratch(lease_id),)
            if row is None:
                devices = (*await asyncio.to_thread(self._files.held, lease_id), *devices)
            held = await asyncio.to_thread(self._files.deadline, lease_id)
            deadline = held or (row.deadline if row else None) or Deadline("", 0, 0)
        return Shim(lease_id, devices, deadline, ready_ns)

    async def _note(self, row: Row, state: SandboxState) -> None:
        """Put what a started sandbox has come to on record."""
        lease_id = row.lease_id
        if isinstance(state, Running) and row.ready_ns is None:
            ready_ns = state.started_boottime_ns
            await self._book.change(lambda spool: lease.observe_ready(spool, lease_id, ready_ns))
            self._book.news.ring()
            _LOG.info("a task runs", extra={"lease": lease_id})
        elif isinstance(state, Exited):
            task = self._book.task(lease_id)
            report = await asyncio.to_thread(self._files.reports.last, lease_id)
            record, ending = exit_record(row, task, state, report)
            await self._ended(lease_id, record, ending)
            self._spans.ran(row, task, record)
        elif isinstance(state, Absent):
            await self._ended(lease_id, None, Ending())

    async def _ended(self, lease_id: str, record: ExitRecord | None, ending: Ending) -> None:
        # The last count of what it sent is on disk before its interface is removed.
        sent = await asyncio.to_thread(self._sandboxes.egress_bytes)
        spool = await self._book.change(
            lambda spool: lease.observe_exit(meters.sent(spool, sent), lease_id, record),
            endings={lease_id: ending},
        )
        self._told.pop(lease_id, None)
        ended = spool.rows[lease_id].exit
        assert ended is not None, lease_id
        facts = {"lease": lease_id, "reason": ended.reason, "exit_code": ended.code}
        _LOG.info("a task ended", extra=facts)

    # -- what is to be done ---------------------------------------------------------------------

    async def _take(self, one: step.Step, now: Clocks) -> None:
        match one:
            case step.Kill(lease_id):
                await asyncio.to_thread(self._sandboxes.kill, lease_id)
            case step.Extend(lease_id, deadline):
                await self._extend(lease_id, deadline)
            case step.Stop():
                await self._stop(one, now)
            case step.Scrub(devices):
                if possible := self._scrubber.possible(devices):
                    self._run_beside("scrub", self._scrubber.scrub(possible))
            case step.Delete(lease_id):
                await asyncio.to_thread(self._files.discard, lease_id)
                await self._book.change(lambda spool: _without(spool, lease_id))
            case step.Start(lease_id, _, _):
                await self._start(lease_id)
            case step.Settle():
                if self._run_beside("settle", self._settler.settle()):
                    self._book.ask_billing = False
            case _:
                assert_never(one)

    async def _extend(self, lease_id: str, deadline: Deadline) -> None:
        handed = self._handed(lease_id, deadline)
        await asyncio.to_thread(self._sandboxes.extend, lease_id, handed)
        shim = self.shims[lease_id]
        self.shims[lease_id] = Shim(lease_id, shim.devices, deadline, shim.ready_ns)

    def _handed(self, lease_id: str, deadline: Deadline) -> ShimDeadline:
        # A warning long before the renewal is due would end tasks that are renewed in time.
        grace_ms = min(self._grace_ms, self._book.spool.rows[lease_id].span_ms // 3)
        return ShimDeadline(deadline.boot_id, deadline.boottime_ns, deadline.raw_ns, grace_ms)

    async def _stop(self, order: step.Stop, now: Clocks) -> None:
        lease_id, code = order.lease_id, order.code or order.reason
        if self._told.get(lease_id, order.by_ns + 1) <= order.by_ns:
            return
        notice_ms = max(0, order.by_ns - now.boottime_ns) // 1_000_000
        word = (code, order.message)
        await asyncio.to_thread(self._sandboxes.stop, lease_id, notice_ms, order.reason, word)
        self._told[lease_id] = order.by_ns
        facts = {"lease": lease_id, "reason": code, "notice_ms": notice_ms}
        _LOG.info("a task is told to stop", extra=facts)

    async def _end_overtime(self, now: Clocks) -> None:
        for lease_id in list(self.shims):
            row, task = self._book.spool.rows.get(lease_id), self._book.task(lease_id)
            if row is None or task is None or row.boot_id != now.boot_id:
                continue
            over, reason = overtime(row, task, now.boottime_ns), "MAX_DURATION"
            word = "It has run for its longest duration."
            if over is None and self._idle is not None:
                over, reason = self._idle(row, task, now.boottime_ns), "IDLE"
                word = "Nobody has had a session in it for its idle_stop."
            if over is not None:
                order = step.Stop(lease_id, over.by_ns, reason, message=word)
                try:
                    await self._stop(order, now)
                except (Fault, OSError) as trouble:
                    _LOG.error("a stop failed: %s", trouble, extra={"lease": lease_id})

    def _refuses(self, lease_id: str) -> bool:
        """Whether the task must not be beside those that live here; looked at again each turn."""
        task = self._book.task(lease_id)
        others = [one for k in self.shims if (one := self._book.task(k)) is not None]
        why = tenancy.conflict(task, others, self._parts) if task is not None else ""
        if why and lease_id not in self._kept_apart:
            _LOG.warning("a task waits: beside it is %s", why, extra={"lease": lease_id})
        (self._kept_apart.add if why else self._kept_apart.discard)(lease_id)
        return bool(why)

    async def _start(self, lease_id: str) -> None:
        spec = self._ready[lease_id]
        now = self._host.now()
        if self._refuses(lease_id):
            return
        busy = {device for shim in self.shims.values() for device in shim.devices}
        may, taken = False, None

        def decide(spool: Spool) -> Spool:
            nonlocal may, taken
            may = lease.may_start(spool, lease_id, now, busy)
            if not may:
                return spool
            taken = self._ahead(spool, lease_id, spec)
            return warm.without(lease.started(spool, lease_id), taken or "")

        spool = await self._book.change(decide)
        if not may:
            return
        row = spool.rows[lease_id]
        assert row.deadline is not None, lease_id
        self.shims[lease_id] = Shim(lease_id, row.devices, row.deadline)
        try:
            await self._launch(spec, self._handed(lease_id, row.deadline), taken)
        except (Fault, OSError) as trouble:
            _LOG.warning("a task could not start: %s", trouble, extra={"lease": lease_id})
            if await self._is_absent(lease_id):
                record = None  # the node lost it: it is placed again by a new lease
                if not isinstance(trouble, Unreachable | Late):
                    ended_ns = self._host.now().boottime_ns
                    record = ExitRecord(now.boot_id, 127, "START_FAILED", None, ended_ns)
                await self._ended(lease_id, record, Ending(str(trouble)))
        finally:
            del self._ready[lease_id]
            self._preparer.forget(lease_id)
            self._book.work.ring()

    def _ahead(self, spool: Spool, lease_id: str, spec: SandboxSpec) -> str | None:
        task = self._book.task(lease_id)
        return self._pool.choose(spool, task, spec) if self._pool and task else None

    async def _launch(self, spec: SandboxSpec, deadline: ShimDeadline, taken: str | None) -> None:
        """Its STARTING row is on disk: the sandbox made ahead that it takes, or one of its own."""
        if taken is not None and self._pool is not None:
            task = self._book.task(spec.lease_id)
            commands = task.commands if task else ()
            if await self._pool.release(taken, spec, commands, deadline):
                return
        await asyncio.to_thread(self._sandboxes.start, spec.lease_id, spec, deadline)

    async def _is_absent(self, lease_id: str) -> bool:
        """Nothing of it is there; what cannot be known yet is for the next look."""
        try:
            state = await asyncio.to_thread(self._sandboxes.inspect, lease_id)
        except (Unreachable, Late):
            return False
        return isinstance(state, Absent)

    # -- beside the loop ------------------------------------------------------------------------

    def _run_beside(self, name: str, work: Coroutine[Any, Any, None]) -> bool:
        """Start ``work`` unless work of that name is under way; whether it was started."""
        running = self._beside.get(name)
        if running is not None and not running.done():
            work.close()
            return False
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._done)
        self._beside[name] = task
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._beside.get(task.get_name()) is task:
            del self._beside[task.get_name()]
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("%s failed", task.get_name(), exc_info=task.exception())
        self._book.work.ring()

    def _prepare_what_is_known(self) -> None:
        rows = self._book.spool.rows
        for lease_id in [k for k in self._ready if k not in rows or rows[k].phase > Phase.KNOWN]:
            del self._ready[lease_id]
        for lease_id, row in rows.items():
            name = f"prepare {lease_id}"
            task = self._book.task(lease_id)
            if row.phase is not Phase.KNOWN or lease_id in self._ready or task is None:
                continue
            unused = scratch(lease_id) not in self._book.spool.dirty
            if unused and lease_id not in self.shims and name not in self._beside:
                self._run_beside(name, self._prepare(task))

    async def _prepare(self, task: Task) -> None:
        """Until it is prepared, or can never be, or is not wanted any more."""
        lease_id, pause_s = task.lease_id, _FIRST_PAUSE_S
        began_ns = self._spans.now_ns()
        while self._is_known(lease_id):
            try:
                spec = await self._preparer.prepare(self._book.task(lease_id) or task)
            except (Unreachable, Late) as trouble:
                _LOG.info("preparing waits: %s", trouble, extra={"lease": lease_id})
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LAST_PAUSE_S)
            except (Fault, OSError) as trouble:
                _LOG.warning("a task cannot start: %s", trouble, extra={"lease": lease_id})
                self._spans.prepared(task, began_ns, str(trouble))
                await self._book.change(
                    lambda spool: lease.abandoned(spool, lease_id, "START_FAILED"),
                    endings={lease_id: Ending(str(trouble))},
                )
                return
            else:
                if self._is_known(lease_id):
                    self._ready[lease_id] = spec
                    self._spans.prepared(task, began_ns)
                    return
        await asyncio.to_thread(self._files.discard, lease_id)

    def _is_known(self, lease_id: str) -> bool:
        row = self._book.spool.rows.get(lease_id)
        return row is not None and row.phase is Phase.KNOWN


def _without(spool: Spool, lease_id: str) -> Spool:
    row = spool.rows.get(lease_id)
    gone = row is not None and lease.deletable(spool, row)
    return lease.deleted(spool, lease_id) if gone else spool


def exit_record(
    row: Row, task: Task | None, state: Exited, report: TaskReport
) -> tuple[ExitRecord | None, Ending]:
    """A keeper's exit record as the state machine takes it, and what is told beside it."""
    shown, saved = state.record, report.checkpoint or Checkpoint("", 0)
    counts = shown.max_memory_bytes, shown.cpu_ns
    ending = Ending(shown.message, *counts, saved.id, saved.saved_ns)
    if not shown.ended_boottime_ns:
        return None, ending  # the keeper is gone without a word
    ended_ns = shown.ended_boottime_ns
    reason = end_reason(row, task, shown.reason, ended_ns)
    ready_ns = state.started_boottime_ns or None
    return ExitRecord(shown.boot_id, shown.exit_code, reason, ready_ns, ended_ns), ending
