"""What a node sees becomes what it should have: merge the observation, answer the whole set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gridlease_kernel.faults import Precondition

from .domain.job import Job, Reason
from .domain.lease import Cause, DesiredSet, Exit, Phase, Sighting, desired_set, observe, to_closing
from .ports import Event, HeldLease, Store, Tx


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a node wiped for a lease. ``record``: as it was told; ``valid``: signed by its key."""

    record: bytes
    public_key: str
    valid: bool
    wiped: tuple[tuple[str, str], ...]  # what, and how it was verified


@dataclass(frozen=True, slots=True)
class Seen:
    """One lease as the node sees it; ``exit_facts``: all that its keeper recorded of the end.

    ``checkpoint``: the newest one's id. ``progress``: of its training or its load.
    """

    sighting: Sighting
    running: bool
    exit_facts: dict[str, Any] | None
    checkpoint: str = ""
    progress: dict[str, Any] | None = None
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """All that a node told in one call."""

    node_id: str
    spool_id: str
    boot_id: str
    seen: tuple[Seen, ...]
    clean: dict[str, bool]


@dataclass(frozen=True, slots=True)
class Desired:
    """The answer: the job and the holding of each lease to run, and why the others end."""

    set: DesiredSet
    run: tuple[tuple[HeldLease, Job], ...]
    stop: tuple[HeldLease, ...]


class Sync:
    """The use case. Runs on any instance: it decides on rows that it has locked itself, and
    phases only go up, so it needs no epoch."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, told: Observation) -> Desired:
        """Note what the node sees; what it should have.

        Raises:
            Precondition: NODE_NOT_ENROLLED.
        """
        async with self._store.writing() as tx:
            before = await tx.nodes.heard(told.node_id, told.spool_id, told.boot_id)
            if before is None:
                raise not_enrolled(told.node_id)
            if before.state != "READY":
                await tx.events.tell(Event("node.ready", f"nodes/{told.node_id}"))
            await tx.nodes.devices_seen(told.node_id, told.clean)
            await _keep_receipts(tx, told, before.public_key)
            held = await tx.leases.unclosed_of_node(told.node_id)
            merged = _merge(held, told, before.spool_id)
            changed = [x for x in merged if x.moved]
            for change in merged:
                await _write(tx, change, told.spool_id)
                await _note(tx, change)
            if changed:
                await tx.nodes.bump([told.node_id])
            generation = before.generation + bool(changed)
            after = [change.lease for change in merged]
            desired = desired_set([x.lease for x in after], told.node_id, generation)
            by_id = {x.lease.lease_id: x for x in after}
            running = [by_id[lease.lease_id] for lease in desired.run]
            jobs = await tx.jobs.some(sorted({x.job for x in running}))
        return Desired(
            desired,
            tuple((x, jobs[x.job]) for x in running),
            tuple(by_id[x.lease_id] for x in desired.stop),
        )


async def _keep_receipts(tx: Tx, told: Observation, public_key: str) -> None:
    """The first receipt of each lease stays, also of a lease that is long closed."""
    receipts = {
        each.sighting.lease_id: each.receipt for each in told.seen if each.receipt is not None
    }
    if not receipts:
        return
    records = {lease_id: one.record for lease_id, one in receipts.items()}
    for lease_id, job in await tx.leases.wiped(told.node_id, records):
        receipt = receipts[lease_id]
        own = receipt.valid and receipt.public_key == public_key
        facts = {
            "lease": lease_id,
            "node": told.node_id,
            "wiped": ",".join(f"{what}:{method}" for what, method in receipt.wiped),
            "signed": "true" if own else "false",
        }
        await tx.events.tell(Event("lease.wiped", job, job.partition("/jobs/")[0], facts=facts))


@dataclass(frozen=True, slots=True)
class _Change:
    """A lease after the merge, and what is new about it."""

    lease: HeldLease
    changed: bool
    moved: bool  # to CLOSING
    ready: bool  # for the first time
    exit_facts: dict[str, Any] | None
    seen: Seen | None


def _merge(held: list[HeldLease], told: Observation, spool_before: str | None) -> list[_Change]:
    """Phases go up, ends are kept, and what an older spool had is lost with it."""
    seen = {each.sighting.lease_id: each for each in told.seen}
    observed = observe([x.lease for x in held], told.node_id, [each.sighting for each in told.seen])
    merged = {lease.lease_id: lease for lease in observed.changed}
    changes = []
    for one in held:
        mine = seen.get(one.lease.lease_id)
        lease = merged.get(one.lease.lease_id, one.lease)
        facts = mine.exit_facts if mine is not None else None
        if spool_before is not None and one.spool_id not in (None, told.spool_id):
            end = lease.exit or Exit(-1, "START_LOST")
            lease = replace(to_closing(lease, Cause.NODE_LOST, 0), exit=end)
            facts = facts or {"code": -1, "reason": "START_LOST", "ran_ns": 0}
        started = mine is not None and (mine.running or mine.sighting.phase >= Phase.STARTING)
        changes.append(
            _Change(
                lease=replace(one, lease=lease),
                changed=lease != one.lease or (mine is not None and one.spool_id is None),
                moved=lease.state is not one.lease.state,
                ready=started and not one.ready,
                exit_facts=facts,
                seen=mine,
            )
        )
    return changes


async def _write(tx: Tx, change: _Change, spool_id: str) -> None:
    if not (change.changed or change.ready):
        return
    held = change.lease
    pinned = spool_id if held.lease.phase > Phase.UNSEEN else None
    await tx.leases.write(
        held.lease, spool_id=pinned, ready=change.ready, exit_facts=change.exit_facts
    )
    project = held.job.partition("/jobs/")[0]
    facts = {"lease": held.lease.lease_id, "node": held.lease.node_id}
    if change.ready and await tx.jobs.ready(held.job):
        await tx.events.tell(Event("job.ready", held.job, project, facts=facts))
    end = held.lease.exit
    if change.moved and end is not None:
        facts["task"] = str(held.index)
        message = f"Attempt {held.lease.attempt} ended with code {end.code}."
        reason = Reason(end.reason, message, "", {"exit_code": str(end.code)})
        await tx.events.tell(Event("job.exited", held.job, project, reason, facts))


async def _note(tx: Tx, change: _Change) -> None:
    """What a task tells of itself counts while its lease is not CLOSED, also after its exit."""
    held, seen = change.lease, change.seen
    if seen is not None and (seen.checkpoint or seen.progress is not None):
        await tx.jobs.told(held.job, held.index, seen.checkpoint, seen.progress)


def not_enrolled(node_id: str) -> Precondition:
    """The answer to a node that nobody has admitted."""
    return Precondition(
        f"Node {node_id} is not enrolled.",
        reason="NODE_NOT_ENROLLED",
        field="node",
        remedy="Make a token with `gridlease nodes add` and enrol with it.",
    )
