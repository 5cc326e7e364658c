"""Bugs in the price book, in what is suspended, told late, owed and paid."""

from __future__ import annotations

from tests.mutate.planted import BILLING, DOMAIN, TABLES, Bug

_PRICES = BILLING + "adapters/price_store.py"
_LATE = BILLING + "late_meters.py"
_BOOK = TABLES + "0008_price_book.sql"
_OFFICE = TABLES + "0010_office.sql"

BOOK = (
    Bug("a price before its time", _PRICES, "        AND effective_ms <= $4\n", "",
        ("price_book:a_price_to_come", "books:prices_are_insert")),
    Bug("everywhere's price goes before a site's own", _PRICES,
        "ORDER BY wanted.chip, wanted.tier, wanted.site, place.fallback\n",
        "ORDER BY wanted.chip, wanted.tier, wanted.site, place.fallback DESC\n",
        ("price_book:a_sites_price", "price_book")),
    Bug("a price that is withdrawn is asked for", _PRICES, "WHERE NOT found.withdrawn\n", "\n",
        ("price_book:a_sites_price", "price_book")),
    Bug("the past is written anew in silence", BILLING + "prices.py",
        "new.effective_ms < now_ms and not new.correction:", "False:",
        ("books:prices_are_insert",)),
    Bug("two prices at one time", _BOOK, "UPDATE book_span AS s SET recorded_to = recorded"
        " WHERE s.id = was.id;", "PERFORM 1;", ("price_book:the_databases", "price_book")),
    Bug("a hand writes the book's rectangles", _BOOK, "IF pg_trigger_depth() < 2 OR (TG_OP",
        "IF (TG_OP", ("price_book:no_hand",)),
    Bug("a multiplier in the house's favour", DOMAIN + "priority.py",
        "return base_nano_per_hour * (permille - NEUTRAL_PERMILLE) // NEUTRAL_PERMILLE",
        "return -(-base_nano_per_hour * (permille - NEUTRAL_PERMILLE) // NEUTRAL_PERMILLE)",
        ("priority",)),
    Bug("a band begins above its priority", DOMAIN + "priority.py",
        "if it.above <= max(0, priority))", "if it.above < max(1, priority))", ("priority",)),
    Bug("a priority's line has the base in it, too", DOMAIN + "priority.py",
        "return amount_nano(rate_nano_per_hour, ns) - amount_nano(base, ns)",
        "return amount_nano(rate_nano_per_hour, ns)", ("priority",)),

    Bug("suspense is posted anew each time", DOMAIN + "excess.py",
        "gone = {it.segment: it.open_nano for it in before.values()}", "gone: dict[int, int] = {}",
        ("excess",)),
    Bug("what was written off comes back", DOMAIN + "excess.py",
        "return max(0, self.amount_nano - self.written_off_nano)", "return self.amount_nano",
        ("excess",)),
    Bug("suspense of what is charged", DOMAIN + "excess.py",
        "amount_nano(rate_nano_per_hour, until_ns) - amount_nano(rate_nano_per_hour, charged_ns)",
        "amount_nano(rate_nano_per_hour, until_ns)", ("excess",)),
    Bug("a write-off for each time that it is asked for", BILLING + "suspense.py",
        'await tx.ledger.journal("write_off", key, cause, sides, now.ms)',
        'await tx.ledger.journal("write_off", None, cause, sides, now.ms)',
        ("evidence:what_is_written_off",)),
    Bug("suspense is a tenant's debt", BILLING + "suspense.py",
        'await tx.ledger.platform("unbilled"): -nano,',
        'await tx.ledger.platform("revenue"): -nano,', ("evidence",)),

    Bug("late egress is charged from nothing again", _LATE, "more = count - known.charged",
        "more = count", ("late_meters:late_egress",)),
    Bug("late egress begins the month anew", _LATE, "amount = grown(entry.tariff, before, more)",
        "amount = grown(entry.tariff, 0, more)", ("late_meters:late_egress",)),
    Bug("late egress costs what it costs today", _LATE,
        "entry = versions.get(known.version) or tariff_of(\n"
        "            entries, meter, row.ask.site, ended.recorded_ms\n        )",
        "entry = entries[-1]", ("late_meters",)),

    Bug("a payment of more than is open settles more", DOMAIN + "receivable.py",
        "applied = min(amount, owed.open_nano)", "applied = amount",
        ("receivables:what_is_more",)),
    Bug("more goes back than was paid", DOMAIN + "receivable.py",
        "left = Parts(paid.applied_nano + before.applied_nano, paid.prepaid_nano"
        " + before.prepaid_nano)", "left = paid", ("receivables:what_is_more",)),
    Bug("what is held goes back", BILLING + "receivables.py",
        "if wallet.available_nano < -parts.prepaid_nano:", "if False:",
        ("receivables:what_was_prepaid",)),
    Bug("a payment is taken for each time that it is sent", BILLING + "receivables.py",
        "        if before is not None:\n"
        "            asked = (owed.invoice, \"\", new.amount_nano",
        "        if False:\n            asked = (owed.invoice, \"\", new.amount_nano",
        ("receivables:it_is_due_by",)),
    Bug("more is paid than was asked for", _OFFICE,
        "CONSTRAINT paid_within_asked CHECK (paid_nano + credited_nano <= asked_nano)",
        "CHECK (asked_nano >= 0)", ("schema:what_would",)),
    Bug("an invoice asks for its usage again", _OFFICE,
        "        NEW.tax_nano + coalesce(debt, 0));",
        "        NEW.payable_nano + coalesce(debt, 0));", ("receivables",)),
    Bug("what credit did not cover is asked of nobody", _OFFICE,
        "        NEW.tax_nano + coalesce(debt, 0));", "        NEW.tax_nano);",
        ("receivables:what_was_charged",)),
    Bug("energy that was told is told again", DOMAIN + "footprint_line.py",
        "use.energy.less(known.energy)", "use.energy",
        ("energy_use:tellings_sum", "footprints:late_usage")),
)  # fmt: skip
