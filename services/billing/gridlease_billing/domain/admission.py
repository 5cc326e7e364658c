"""May these leases be authorised, all or none; and if not, what would change it?

``grant.authorize`` decides for one gang; this decides for a whole call, which may hold several
tenants, jobs and gangs, and puts the refusals into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridlease_kernel.money import MAX_NANO, Money, hold_nano

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import (
    Ask,
    Cause,
    Funds,
    GrantRow,
    Quote,
    Reason,
    Refused,
    Terms,
)
from gridlease_billing.domain.means import Means

LONGEST_NOTICE_MS = 600_000  # what a job may ask for at most
NO_PRICE = "NO_PRICE"
CALL_REFUSED = "CALL_REFUSED"  # this one could be had, another of the same call could not
_WORDS: Mapping[str, str] = {
    Cause.BUDGET_EXHAUSTED: "BUDGET_TOO_SMALL",
    Cause.FUNDS_EXHAUSTED: "CREDIT_TOO_LOW",
    Cause.PRICE_ABOVE_MAX: "PRICE_TOO_HIGH",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer for one lease."""

    lease_id: str
    ok: bool
    rate_nano_per_hour: int = 0
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """``rows``: to insert (none when anything was refused)."""

    rows: tuple[GrantRow, ...]
    decisions: tuple[Decision, ...]


def admit(
    existing: Mapping[str, GrantRow],
    asks: Sequence[Ask],
    quotes: Mapping[str, Quote],
    means: Means,
    now_ms: int,
    terms: Terms,
    *,
    each_alone: bool = False,
) -> Admitted:
    """Authorises all leases of a call, or none. A lease that is new and not in ``quotes`` has no
    price in force.

    Args:
        each_alone: A gang that is refused refuses nobody else; the order asked decides who has
            what is left.
    """
    rows: list[GrantRow] = []
    decided: dict[str, Decision] = {}
    for group in _groups(asks):
        unpriced = [
            ask for ask in group if ask.lease_id not in existing and ask.lease_id not in quotes
        ]
        if unpriced:
            decided |= {ask.lease_id: _unpriced(ask, unpriced[0]) for ask in group}
            continue
        funds = means.funds(group[0])
        answer = grant.authorize(existing, group, quotes, funds, now_ms, terms)
        rows += answer.rows
        means = means.less(group[0], sum(row.held_nano for row in answer.rows))
        for ask, one in zip(group, answer.answers, strict=True):
            if isinstance(one, Refused):
                decided[ask.lease_id] = _refused(one, group, quotes, existing, funds, terms)
            else:
                decided[ask.lease_id] = Decision(ask.lease_id, True, one.rate_nano_per_hour)
    failed = next((one for one in decided.values() if not one.ok), None)
    if failed is None or each_alone:
        return Admitted(tuple(rows), tuple(decided[ask.lease_id] for ask in asks))
    hint = f"Lease {failed.lease_id} of the same call was refused: {failed.hint}"
    return Admitted(
        (),
        tuple(
            one if not one.ok else Decision(one.lease_id, False, 0, CALL_REFUSED, hint)
            for one in (decided[ask.lease_id] for ask in asks)
        ),
    )


def _groups(asks: Sequence[Ask]) -> list[list[Ask]]:
    """By tenant, job and gang, in the order asked: one wallet and one budget each."""
    groups: dict[tuple[str, str, str], list[Ask]] = {}
    for ask in asks:
        groups.setdefault((ask.tenant, ask.job, ask.gang or ask.lease_id), []).append(ask)
    return list(groups.values())


def _unpriced(ask: Ask, missing: Ask) -> Decision:
    hint = (
        f"No {missing.tier} price of {missing.chip} is in force: an operator sets one,"
        " or ask for another chip or tier."
    )
    return Decision(ask.lease_id, False, reason=NO_PRICE, hint=hint)


def _refused(
    one: Refused,
    group: Sequence[Ask],
    quotes: Mapping[str, Quote],
    existing: Mapping[str, GrantRow],
    funds: Funds,
    terms: Terms,
) -> Decision:
    fresh = [ask for ask in group if ask.lease_id not in existing]
    need = sum(
        hold_nano(quotes[ask.lease_id].rate_nano_per_hour, terms.grant_ms + ask.notice_ms)
        for ask in fresh
    )
    need = min(need, MAX_NANO)
    spans = f"the first grant and the notice ({terms.grant_ms} ms + {group[0].notice_ms} ms)"
    match one.reason:
        case Cause.BUDGET_EXHAUSTED:
            left = max(0, funds.budget_nano or 0)
            hint = (
                f"{spans} cost {Money(need)} and {Money(left)} of the job's budget of"
                f" {Money(group[0].budget_nano or 0)} is left: raise the budget by"
                f" {Money(need - left)}."
            )
        case Cause.FUNDS_EXHAUSTED:
            left = max(0, funds.credit_nano)
            hint = (
                f"{spans} cost {Money(need)} and {group[0].tenant} has {Money(left)} available:"
                f" pay in {Money(need - left)}, or wait until running leases release theirs."
            )
        case Cause.INVOICE_OVERDUE:
            hint = funds.overdue
        case Cause.PRICE_ABOVE_MAX:
            hint = _price_hint(fresh, quotes)
        case Reason.LEASE_FENCED:
            hint = "The lease was closed: a task is placed again under a new lease id."
        case _:
            raise AssertionError(one)
    reason = _WORDS.get(one.reason, one.reason)
    return Decision(one.lease_id, False, reason=reason, hint=hint[0].upper() + hint[1:])


def _price_hint(fresh: Sequence[Ask], quotes: Mapping[str, Quote]) -> str:
    for ask in fresh:
        rate = quotes[ask.lease_id].rate_nano_per_hour
        if ask.max_rate_nano_per_hour is not None and rate > ask.max_rate_nano_per_hour:
            return (
                f"{ask.chip} costs {Money(min(rate, MAX_NANO))} an hour now; the job accepts at"
                f" most {Money(ask.max_rate_nano_per_hour)}: accept more, take another tier or"
                " chip, or wait for the price to fall."
            )
    raise AssertionError(fresh)
