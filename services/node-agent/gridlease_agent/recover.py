"""The agent at its start: what is on disk, against what is alive (lease-protocol, section 7)."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from gridlease_kernel.ids import Ids

from gridlease_agent.book import Book
from gridlease_agent.domain import lease, meters
from gridlease_agent.domain.spool import Deadline, ExitRecord, Phase, Row, Shim, Spool
from gridlease_agent.domain.task import Ending, Task, scratch
from gridlease_agent.ports import Files, Host, Recorded, Scheduler, SpoolStore
from gridlease_agent.reconcile import exit_record
from gridlease_agent.runtimes.states import Exited, Looked, Running, SandboxRunner, Starting

_LOG = logging.getLogger(__name__)


def recover(
    store: SpoolStore,
    host: Host,
    scheduler: Scheduler,
    sandboxes: SandboxRunner,
    files: Files,
    devices: Collection[str],
    ids: Ids,
) -> Book:
    """The book to go on with, already on disk.

    A new spool distrusts every device and every scratch folder; a device that the spool does not
    know is dirty. Sandboxes without a row are left to their shims: their devices are dirty until
    they have ended and were scrubbed.
    """
    now = host.now()
    recorded = store.read()
    seen = sandboxes.look()
    folders = {*(one.lease_id for one in seen), *files.folders()}
    if recorded is None:
        unscrubbed = [*devices, *(scratch(lease_id) for lease_id in folders)]
        recorded = Recorded(lease.new_spool(ids.new("sp"), unscrubbed), {}, {}, frozenset())
        _LOG.warning("a new spool: every device is dirty", extra={"folders": len(folders)})
        before: Spool | None = None
    else:
        before = recorded.spool
    tasks = {lease_id: scheduler.decode(raw) for lease_id, raw in recorded.tasks.items()}
    shims, exits, endings = _alive(recorded.spool, tasks, seen, files)
    counted = meters.sent(recorded.spool, sandboxes.egress_bytes())
    spool = lease.recover(counted, now, shims, exits)
    spool = replace(spool, dirty=spool.dirty | _unknown(spool, devices, folders, recorded))
    fresh = {k: v for k, v in endings.items() if k in spool.rows}
    store.write(before, spool, {}, fresh)
    store.note_devices(devices)
    _tell(spool, shims)
    spent_ms = (host.now().boottime_ns - now.boottime_ns) // 1_000_000
    _LOG.info("the book is open", extra={"live": len(shims), "ms": spent_ms})
    return Book(store, spool, tasks, {**recorded.endings, **fresh})


def _unknown(
    spool: Spool, devices: Collection[str], folders: Collection[str], recorded: Recorded
) -> frozenset[str]:
    """Devices that were never on record, and folders that no row speaks for."""
    orphans = {scratch(lease_id) for lease_id in folders if lease_id not in spool.rows}
    return frozenset(orphans | (set(devices) - recorded.devices))


def _alive(
    spool: Spool, tasks: dict[str, Task], seen: Collection[Looked], files: Files
) -> tuple[dict[str, Shim], dict[str, ExitRecord], dict[str, Ending]]:
    shims: dict[str, Shim] = {}
    exits: dict[str, ExitRecord] = {}
    endings: dict[str, Ending] = {}
    for one in seen:
        lease_id, state, row = one.lease_id, one.state, spool.rows.get(one.lease_id)
        if isinstance(state, Starting | Running):
            shims[lease_id] = _adopted(lease_id, row, state, files)
        elif isinstance(state, Exited) and row is not None and row.phase is Phase.STARTING:
            report = files.reports.last(lease_id)
            record, endings[lease_id] = exit_record(row, tasks.get(lease_id), state, report)
            if record is not None:
                exits[lease_id] = record
    return shims, exits, endings


def _adopted(lease_id: str, row: Row | None, state: Starting | Running, files: Files) -> Shim:
    devices = row.devices if row else (*files.held(lease_id), scratch(lease_id))
    deadline = files.deadline(lease_id) or Deadline("", 0, 0)
    ready_ns = state.started_boottime_ns if isinstance(state, Running) else None
    return Shim(lease_id, devices, deadline, ready_ns)


def _tell(spool: Spool, shims: dict[str, Shim]) -> None:
    for lease_id in sorted(shims):
        known = lease_id in spool.rows
        facts = {"lease": lease_id, "on_record": known}
        _LOG.info("a live sandbox was %s", "adopted" if known else "found", extra=facts)
