"""Run time that nobody may be charged for: money in suspense, until charged or written off.

Nobody paid it and nobody is asked for it, so its other side is the platform's account ``unbilled``:
what was perhaps worked and is not sold. No tenant's balance and no supplier's part is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gridlease_kernel.faults import Missing

from gridlease_billing.credit import reused
from gridlease_billing.domain.evidence import BEYOND_GRANT, SEGMENT_UNKNOWN, SPOOL_MISMATCH, Heard
from gridlease_billing.domain.excess import Excess, excesses, moved_nano
from gridlease_billing.domain.grant_row import GrantRow, State
from gridlease_billing.domain.segment import RUN_METER, chargeable
from gridlease_billing.domain.settlement import Alarm
from gridlease_billing.domain.usage import Stored
from gridlease_billing.ports import Books, Suspended, Work

MOST_ROWS = 10_000
_NO_EXCESS = (SEGMENT_UNKNOWN, SPOOL_MISMATCH)  # not of this lease, or at no rate


@dataclass(frozen=True, slots=True)
class Told:
    """How far the run time of a lease's segments was told in a call, and why not all is charged."""

    run_ns: Mapping[int, int] = field(default_factory=dict)
    cause: str = ""

    def further(self, word: Heard) -> Told:
        """With another report of the same lease."""
        both = {*self.run_ns, *word.told_ns}
        run_ns = {n: max(self.run_ns.get(n, 0), word.told_ns.get(n, 0)) for n in both}
        why = [kind for kind in word.doubts if kind not in _NO_EXCESS]
        return Told(run_ns, why[0] if why else self.cause)


async def suspend(
    tx: Work,
    stored: Mapping[str, Stored],
    after: Mapping[str, GrantRow],
    told: Mapping[str, Told],
    now_ms: int,
) -> list[Alarm]:
    """Brings suspense up to what is told and charged now; the alarms that explain what is there.

    ``stored``: leases as they were, locked; ``after``: as they have become, and are written.
    Idempotent: of totals, so nothing that is told again moves it.
    """
    rows = {
        lease: row
        for lease, row in after.items()
        if stored[lease].suspense_ns or (lease in told and _beyond(row, told[lease].run_ns))
    }
    if not rows:
        return []
    before = await tx.evidence.excess(rows)
    charged = await _charged(tx, rows)
    alarms: list[Alarm] = []
    for lease, row in sorted(rows.items()):
        heard = told.get(lease, Told())
        changed = excesses(
            lease, row.ask.tenant, row.segments, before.get(lease, {}), heard.run_ns,
            charged[lease], heard.cause or BEYOND_GRANT,
        )  # fmt: skip
        if changed:
            await tx.evidence.put_excess(changed, now_ms)
            await _post(tx, lease, moved_nano(before.get(lease, {}), changed), now_ms)
        alarms += [_alarm(row, it) for it in changed if it.excess_ns]
    return alarms


async def list_suspense(books: Books, tenant: str = "", *, closed: bool = False) -> list[Suspended]:
    """What lies in suspense, by lease. ``closed``: also what was charged or written off since."""

    async def work(tx: Work) -> list[Suspended]:
        return await tx.evidence.suspended(tenant, MOST_ROWS, closed=closed)

    return await books.run(work)


async def write_off(books: Books, lease: str, note: str, request_id: str) -> int:
    """Takes all that a lease has in suspense out of it, for good; how much, in nano-units.

    Idempotent by ``request_id``. What its node tells beyond that goes into suspense again.

    Raises:
        Missing: NOTHING_IN_SUSPENSE.
        Invalid: REQUEST_ID_REUSED.
    """
    key = f"write_off/{request_id}"
    cause = f"{lease}: {note}" if note else lease

    async def work(tx: Work) -> int:
        stored = await tx.leases.lock([lease])
        known = await tx.ledger.posted(key, "unbilled")
        if known is not None:
            if known[0] != cause:
                raise reused("another write-off")
            return known[1]
        found = (await tx.evidence.excess([lease])).get(lease, {})
        due = sum(it.open_nano for it in found.values())
        if lease not in stored or not due:
            raise Missing(
                f"{lease} has nothing in suspense.",
                reason="NOTHING_IN_SUSPENSE",
                field="lease",
                remedy="List what is in suspense to see leases and amounts.",
            )
        now = await tx.now()
        gone = [
            replace(it, written_off_nano=it.written_off_nano + it.open_nano)
            for it in found.values()
        ]
        await tx.evidence.put_excess(gone, now.ms)
        sides = await _sides(tx, -due)
        await tx.ledger.journal("write_off", key, cause, sides, now.ms)
        return due

    return await books.run(work)


async def _post(tx: Work, lease: str, nano: int, now_ms: int) -> None:
    if nano:
        await tx.ledger.journal("suspense", None, lease, await _sides(tx, nano), now_ms)


async def _sides(tx: Work, nano: int) -> dict[int, int]:
    return {
        await tx.ledger.platform("suspense"): nano,
        await tx.ledger.platform("unbilled"): -nano,
    }


async def _charged(tx: Work, rows: Mapping[str, GrantRow]) -> dict[str, dict[int, int]]:
    """Run time that is charged, by segment; of a final lease, by all its lines."""
    final = [lease for lease, row in rows.items() if row.state is State.FINAL]
    written = await tx.lines.written(final) if final else {}
    return {
        lease: {number: it.charged_ns for number, it in written.get(lease, {}).items()}
        if row.state is State.FINAL
        else _chargeable(row)
        for lease, row in rows.items()
    }


def _chargeable(row: GrantRow) -> dict[int, int]:
    spans = zip(row.segments, chargeable(row.segments, row.counters), strict=True)
    return {segment.number: ns for segment, ns in spans}


def _beyond(row: GrantRow, run_ns: Mapping[int, int]) -> bool:
    charged = _chargeable(row)
    return any(ns > charged.get(number, ns) for number, ns in run_ns.items())


def _alarm(row: GrantRow, it: Excess) -> Alarm:
    facts = {
        "segment": str(it.segment),
        "meter": RUN_METER,
        "told_ns": str(it.told_ns),
        "charged_ns": str(it.charged_ns),
        "amount_nano": str(it.amount_nano),
    }
    return Alarm(it.cause, it.tenant, it.lease_id, row.ask.node, facts)
