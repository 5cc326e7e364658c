"""The 18 designs that look right and fail: each replaces one rule by the naive one.

Source: docs/lease-protocol.md, section 10.
"""

from __future__ import annotations

from dataclasses import replace

from gridlease_agent.domain import lease as agent
from gridlease_agent.domain.spool import Phase
from gridlease_billing.domain import grant
from gridlease_scheduler.domain import lease as scheduler

from tests.sim.rules import Rules
from tests.sim.world import GRANT_MS, SCHEDULER


class T1(Rules):
    """The deadline counts from the receipt of the grant."""

    def grant_answer(self, spool, sent, received, answer):
        return super().grant_answer(spool, received, received, answer)


class T2(Rules):
    """The scheduler waits for the end that it reads, and nobody fences."""

    def close(self, row, lease_id, notice_ms, cause, now_ms, terms):
        if row is None:
            return super().close(row, lease_id, notice_ms, cause, now_ms, terms)
        return grant.Closed(row, max(0, row.ends_at_ms - now_ms), grant.Effect(lease_id))


class T3(Rules):
    """A Close that timed out is taken for done."""

    def close_timed_out(self, leader, lease):
        return scheduler.close_answered(lease, GRANT_MS, leader.clock(), leader.terms)


class T4(Rules):
    """The agent's process enforces the deadline."""

    def shim_kills(self, sandbox):
        return sandbox.node.alive


class T5(Rules):
    """A margin of drift alone."""

    terms = replace(SCHEDULER, kill_ms=0, step_ms=0)


class T6(Rules):
    """What a node does not report has ended."""

    def observe(self, leases, node_id, sightings):
        named = {s.lease_id for s in sightings}
        ended = scheduler.Exit(0, "EXITED")
        silent = [
            scheduler.Sighting(x.lease_id, scheduler.Phase.CLEAN, ended, gone=True)
            for x in leases
            if x.node_id == node_id and x.phase >= scheduler.Phase.KNOWN
            if x.lease_id not in named
        ]
        return super().observe(leases, node_id, [*sightings, *silent])


class T7(Rules):
    """The first grant travels in the desired set."""

    def authorize(self, existing, asks, quotes, funds, now_ms, terms):
        decided = super().authorize(existing, asks, quotes, funds, now_ms, terms)
        ends_ms = now_ms + terms.grant_ms
        rows = tuple(
            replace(
                row,
                state=grant.State.OPEN,
                ends_at_ms=ends_ms,
                segments=(grant.Segment(1, row.rate_nano_per_hour, 0, now_ms, ends_ms),),
            )
            for row in decided.rows
        )
        return replace(decided, rows=rows)

    def apply_desired_set(self, spool, now, generation, run, stop):
        after = super().apply_desired_set(spool, now, generation, run, stop)
        for lease_id in after.rows.keys() - spool.rows.keys():
            first = agent.Answer(lease_id, GRANT_MS, False, "", 1, False)
            after = agent.grant_answer(after, now, now, first)
        return after


class T8(Rules):
    """Leadership is checked before the write, not inside it; nor is anything else."""

    def may_write(self, leader):
        return True

    def checks_inside(self, leader):
        return False


class T9(Rules):
    """Desired sets without a generation."""

    def apply_desired_set(self, spool, now, generation, run, stop):
        generation = max(generation, spool.generation)
        return super().apply_desired_set(spool, now, generation, run, stop)


class T10(Rules):
    """The lease is not pinned to the spool."""

    def spool_id(self, spool):
        return "any"


class T11(Rules):
    """*Gone* is reported before billing has the final counters."""

    def sync_report(self, spool):
        return tuple(replace(s, gone=s.phase is Phase.CLEAN) for s in super().sync_report(spool))


class T12(Rules):
    """Authorize is an upsert."""

    def authorize(self, existing, asks, quotes, funds, now_ms, terms):
        decided = super().authorize({}, asks, quotes, funds, now_ms, terms)
        rows = tuple(
            replace(
                row,
                spool_id=existing[row.lease_id].spool_id,
                segments=tuple(replace(s, frozen_ns=None) for s in existing[row.lease_id].segments),
                counters=existing[row.lease_id].counters,
                charged_nano=existing[row.lease_id].charged_nano,
                state=grant.State.OPEN if existing[row.lease_id].segments else row.state,
            )
            if row.lease_id in existing
            else row
            for row in decided.rows
        )
        return replace(decided, rows=rows)


class T13(Rules):
    """Exec first, write afterwards."""

    def start(self, node, lease_id, spool_after):
        node.execute(lease_id)
        if node.crashes_now():
            return False
        node.disk = spool_after
        return True

    def recover(self, spool, now, shims, exits):
        known = {k for k, row in spool.rows.items() if row.phase is Phase.KNOWN}
        shims = {k: shim for k, shim in shims.items() if k not in known}
        exits = {k: record for k, record in exits.items() if k not in known}
        return super().recover(spool, now, shims, exits)


class T14(Rules):
    """A row is deleted when it leaves the desired set."""

    def apply_desired_set(self, spool, now, generation, run, stop):
        after = super().apply_desired_set(spool, now, generation, run, stop)
        rows = {
            k: row
            for k, row in after.rows.items()
            if k in after.named or row.phase is Phase.STARTING
        }
        return replace(after, rows=rows)


class T15(Rules):
    """Usage after fencing is refused."""

    def settle(self, rows, reports, quotes, funds, now_ms, terms):
        fenced = {row.lease_id for row in rows if row.state is grant.State.FENCED}
        reports = {k: replace(r, counters={}) if k in fenced else r for k, r in reports.items()}
        return super().settle(rows, reports, quotes, funds, now_ms, terms)


class T16(Rules):
    """Increments instead of cumulative counters."""

    def settle_report(self, node, spool):
        reports = super().settle_report(node, spool)
        out = []
        for report in reports:
            told = node.counted.get(report.lease_id, {})
            more = {k: v - told.get(k, 0) for k, v in report.counters.items()}
            node.counted[report.lease_id] = dict(report.counters)
            out.append(replace(report, counters=more))
        return tuple(out)

    def settle(self, rows, reports, quotes, funds, now_ms, terms):
        had = {row.lease_id: row.counters for row in rows}
        reports = {
            k: replace(
                r, counters={c: had.get(k, {}).get(c, 0) + ns for c, ns in r.counters.items()}
            )
            for k, r in reports.items()
        }
        return super().settle(rows, reports, quotes, funds, now_ms, terms)


class T17(Rules):
    """``dirty`` is kept in memory."""

    def recover(self, spool, now, shims, exits):
        return super().recover(replace(spool, dirty=frozenset()), now, shims, exits)


class T18(Rules):
    """An unexpired deadline is trusted after a reboot."""

    def recover(self, spool, now, shims, exits):
        after = super().recover(spool, now, shims, exits)
        return after.with_rows(
            *(
                replace(
                    row,
                    deadline=replace(spool.rows[k].deadline, boot_id=now.boot_id),
                )
                for k, row in after.rows.items()
                if row.phase is Phase.KNOWN and spool.rows[k].deadline is not None
            )
        )


TRAPS: dict[int, type[Rules]] = {
    1: T1,
    2: T2,
    3: T3,
    4: T4,
    5: T5,
    6: T6,
    7: T7,
    8: T8,
    9: T9,
    10: T10,
    11: T11,
    12: T12,
    13: T13,
    14: T14,
    15: T15,
    16: T16,
    17: T17,
    18: T18,
}
