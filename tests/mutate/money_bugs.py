"""Planted money bugs: each is one wrong piece of text in the real source, and who must see it."""

from __future__ import annotations

from dataclasses import dataclass

_BILLING = "services/billing/gridlease_billing/"
_SEGMENT = _BILLING + "domain/segment.py"
_GRANT = _BILLING + "domain/grant.py"
_SETTLEMENT = _BILLING + "domain/settlement.py"
_TICK = _BILLING + "domain/tick.py"
_LEDGER = _BILLING + "migrations/0003_ledger.sql"
_LEASES = _BILLING + "adapters/lease_store.py"
_BOOKS = _BILLING + "adapters/ledger_store.py"
_MONEY = "libs/kernel/gridlease_kernel/money.py"

# Who looks: pytest's arguments.
SIM = ("tests/sim/test_money.py", "-m", "not slow")
WALK = ("tests/integration/billing/test_walk.py", "tests/integration/billing/test_lease.py",
        "tests/integration/billing/test_metering.py")  # fmt: skip
LEDGER = ("tests/integration/billing/test_ledger.py",)
BOOKS = ("tests/integration/billing/test_books.py", "tests/integration/billing/test_credits.py",
         "tests/integration/billing/test_ledger.py")  # fmt: skip
RATING = ("tests/property/billing", "tests/property/kernel", "tests/unit/kernel")
SEGMENT = ("tests/property/billing/test_segment.py",)
UNITS = ("tests/unit/billing/test_settlement.py", "tests/unit/billing/test_means.py")
CREDIT = ("tests/property/billing/test_credit_note.py",)
METERING = ("tests/integration/billing/test_metering.py", "tests/unit/billing/test_ticks.py")
LATE = ("tests/property/billing/test_late_data.py", "tests/integration/billing/test_documents.py",
        "tests/integration/billing/test_invoice.py")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bug:
    """``old`` stands in ``path`` once (or ``times``); with ``new`` in its place, ``tests`` fail."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
    quick: bool = False  # one of the few that the slow suite tries
    times: int = 1


BUGS = (
    Bug("swap the merge for a sum", _SEGMENT,
        "return {**counters, **higher} if higher else counters",
        "return {k: counters.get(k, 0) + reported.get(k, 0) for k in {**counters, **reported}}",
        SIM, quick=True),
    Bug("the last report wins, not the furthest", _SEGMENT,
        "if value > counters.get(key, -1)}", "}", SIM),
    Bug("forget what was granted", _SEGMENT,
        'counters.get((segment.number, RUN_METER), 0), segment.granted_ns, left)',
        'counters.get((segment.number, RUN_METER), 0), left)', SIM),
    Bug("forget the cap on the sum", _SEGMENT, "        left -= ns\n", "", SEGMENT),
    Bug("freeze nothing", _SEGMENT, "s.number < used and s.frozen_ns is None",
        "False", SIM),
    Bug("charge at the dearest rate", _SEGMENT,
        "sum(amount_nano(segment.rate_nano_per_hour, ns) for segment, ns in spans)",
        "sum(amount_nano(max(s.rate_nano_per_hour for s in segments), ns) for _, ns in spans)",
        SIM),
    Bug("hold for the newest rate only", _SEGMENT, "return max(rates), len(rates)",
        "return rates[-1], len(rates)", SIM),
    Bug("round up", _MONEY, "return rate_nano_per_hour * run_ns // HOUR_NS",
        "return -(-rate_nano_per_hour * run_ns // HOUR_NS)", SIM, quick=True),
    Bug("round the rate down", _MONEY, "quantity_milli + 500) // 1_000", "quantity_milli) // 1_000",
        SIM),
    Bug("hold rounded down", _MONEY,
        "return -(-rate_nano_per_hour * span_ms * 1_000_000 // HOUR_NS)",
        "return rate_nano_per_hour * span_ms * 1_000_000 // HOUR_NS", SEGMENT),
    Bug("skip the sort of remainders", _MONEY,
        "key=lambda i: (-(parts_nano[i] % step), i)", "key=lambda i: i", SEGMENT),
    Bug("round per slice", _BILLING + "domain/meter_price.py",
        "return cost(tariff, before + count) - cost(tariff, before)",
        "return cost(tariff, count)", RATING),
    Bug("charge after FINAL", _GRANT,
        "    if row.state is State.FINAL:\n        return row\n"
        "    row = _booked(replace(row, segments=frozen(row.segments, row.counters)))",
        "    segments = tuple(replace(it, frozen_ns=None) for it in row.segments)\n"
        "    row = _booked(replace(row, segments=segments))",
        SIM, quick=True),
    Bug("release no hold at the end", _GRANT, "state=State.FINAL, held_nano=0, segments=segments)",
        "state=State.FINAL, segments=segments)", SIM),
    Bug("re-open on a second Authorize", _GRANT,
        "    if any(row.state in (State.FENCED, State.FINAL) for row in known):\n"
        "        reason = Reason.LEASE_FENCED\n", "", WALK),
    Bug("grant without looking at the funds", _GRANT,
        "refusal = funds.refusal(sum(e.charge_nano + e.hold_nano for e in spent))",
        "refusal = funds.refusal(0)", SIM),
    Bug("forget the notice in the hold", _GRANT,
        "return hold_nano(row.rate_nano_per_hour, row.grant_ms + row.ask.notice_ms)",
        "return hold_nano(row.rate_nano_per_hour, row.grant_ms)", SIM),
    Bug("extend a fenced grant", _GRANT,
        "    if row.state is not State.OPEN:\n        return row\n    after = _extended",
        "    after = _extended", SIM),
    Bug("the price of a running segment changes", _GRANT,
        "quote == Quote(segment.rate_nano_per_hour, segment.period)", "True", SIM),
    Bug("believe another spool", _GRANT,
        "return row.spool_id is not None and row.spool_id != report.spool_id",
        "return False", WALK),
    Bug("forget the budget", _BILLING + "domain/grant_row.py",
        "if self.budget_nano is not None and cost_nano > self.budget_nano:",
        "if self.budget_nano is not None and cost_nano > 2 * self.budget_nano:", SIM, quick=True),
    Bug("spend the same money for two gangs", _SETTLEMENT,
        "        means = means.less(rows[0].ask, spent)\n", "", UNITS),
    Bug("believe run time ahead of time", _SETTLEMENT,
        "kept[segment, meter] = min(cumulative, most)", "kept[segment, meter] = cumulative", SIM),
    Bug("believe any signature", _BILLING + "settle.py",
        "if not ask.node_key or proof(ask.node_key, it.text, it.signature):", "if True:", METERING),
    Bug("a tick beyond its cap", _TICK, "cap_ns = min(segment.granted_ns, ",
        "cap_ns = max(segment.granted_ns, ", METERING),
    Bug("a tick of a lease that is fenced", _TICK,
        "row.state is State.OPEN\n        and row.spool_id",
        "row.spool_id", METERING),
    Bug("a tick of another node", _TICK, "        and known.node == node\n", "", METERING),
    Bug("a tick that ends a lease is only counted", _TICK,
        "        and not report.final\n", "", WALK),
    Bug("refund twice what is owed", _BILLING + "domain/credits.py",
        "return Owed(kind, missing_ms, amount) if", "return Owed(kind, missing_ms, 2 * amount) if",
        BOOKS),
    Bug("a warning that was given is paid back", _BILLING + "domain/credits.py",
        "missing_ms = max(0, before.ask.notice_ms - given_ms)",
        "missing_ms = before.ask.notice_ms", BOOKS),
    Bug("pay in twice", _BILLING + "credit.py", "        elif before != credit:\n",
        "            await tx.ledger.credit(credit, 0)\n        elif before != credit:\n", SIM,
        quick=True),
    Bug("late usage is charged for ever again", _BILLING + "domain/late.py",
        "amount = amount_nano(rate, ns) - amount_nano(rate, known.charged_ns)",
        "amount = amount_nano(rate, ns)", LATE),
    Bug("late usage is lost", _BILLING + "domain/late.py",
        "return reported_ns(after.counters) > reported_ns(before.counters)", "return False", LATE),
    Bug("a credit note beyond its line", _BILLING + "domain/credit_note.py",
        "left = [part.left_nano for part in parts]\n    if",
        "left = [part.amount_nano for part in parts]\n    if", CREDIT),
    Bug("an owner's part rounded by slices", _BILLING + "domain/supplier.py",
        "part = charged_nano * contract.share_permyriad // PERMYRIAD",
        "part = -(-charged_nano * contract.share_permyriad // PERMYRIAD)", SIM),
    Bug("drop the conflict clause", _LEASES,
        "    AS t (id, job, gang, tenant, project, node)\nON CONFLICT DO NOTHING\n",
        "    AS t (id, job, gang, tenant, project, node)\n", BOOKS),
    Bug("counters are overwritten in the tables", _LEASES,
        "SET cumulative = greatest(counter.cumulative, excluded.cumulative)",
        "SET cumulative = counter.cumulative + excluded.cumulative", WALK),
    Bug("a charge leaves its hold", _BOOKS,
        "holds[account] = holds.get(account, 0) + it.effect.hold_nano",
        "holds[account] = holds.get(account, 0) + max(0, it.effect.hold_nano)", WALK),
    Bug("a journal of one side", _LEDGER, "HAVING sum(amount) <> 0 OR currency IS NULL",
        "HAVING currency IS NULL", BOOKS),
    Bug("no CHECK against overspending", _LEDGER,
        "ADD CONSTRAINT no_overspend CHECK (posted - held >= -credit_limit)",
        "ADD CONSTRAINT no_overspend CHECK (posted - held >= -credit_limit - 1000000000000)",
        BOOKS),
    Bug("the chain forgets the link before", _LEDGER, "next_hash := sha256(link.hash\n        || ",
        "next_hash := sha256(", LEDGER),
    Bug("rows of every tenant", _LEDGER, "= '*' $$;", "IS NOT NULL $$;", LEDGER),
)  # fmt: skip
