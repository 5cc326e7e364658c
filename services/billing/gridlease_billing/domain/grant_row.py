"""What billing remembers and says about a lease: records only.

What they mean and how they change is in ``grant``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.segment import Counters, Segment

RENEW_BELOW_PERMILLE = 550  # a grant with more of itself left is not extended: agents ask at half


class State(enum.StrEnum):
    HELD = "HELD"
    OPEN = "OPEN"
    FENCED = "FENCED"
    FINAL = "FINAL"


class Cause(enum.StrEnum):
    """Why a row was fenced: the scheduler's word in ``Close``, or billing's own."""

    EXITED = "EXITED"
    STOPPED = "STOPPED"
    PREEMPTED = "PREEMPTED"
    DRAINED = "DRAINED"
    NODE_LOST = "NODE_LOST"
    FUNDS_EXHAUSTED = "FUNDS_EXHAUSTED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    PRICE_ABOVE_MAX = "PRICE_ABOVE_MAX"
    INVOICE_OVERDUE = "INVOICE_OVERDUE"
    HOLD_ENDED = "HOLD_ENDED"
    GRANT_ENDED = "GRANT_ENDED"
    RESTORED = "RESTORED"


class Reason(enum.StrEnum):
    """Why an answer carries no grant, where the row's own cause does not say it."""

    SPOOL_MISMATCH = "SPOOL_MISMATCH"
    UNKNOWN_LEASE = "UNKNOWN_LEASE"
    LEASE_FENCED = "LEASE_FENCED"


class Phase(enum.IntEnum):
    """The agent's phase as reported; it only goes up."""

    KNOWN = 1
    STARTING = 2
    EXITED = 3
    CLEAN = 4


@dataclass(frozen=True, slots=True)
class Terms:
    """Settings of one site. Source: docs/lease-protocol.md, section 5."""

    grant_ms: int = 120_000
    hold_ttl_ms: int = 60_000
    late_after_ms: int = 7 * 24 * 3_600_000
    margin_ms: int = 5_120  # kill time + step of the database clock + drift within a grant
    renew_below_permille: int = RENEW_BELOW_PERMILLE
    ahead_ms: int = 2_000  # run time may be this much ahead of the time that passed here


@dataclass(frozen=True, slots=True)
class Ask:
    """One lease of an ``Authorize``: all that billing ever learns about it."""

    lease_id: str
    job: str = ""
    gang: str = ""  # "" = alone; names ONE placement, never two: its holds live and die together
    tenant: str = ""
    project: str = ""
    node: str = ""
    chip: str = ""
    quantity_milli: int = 0
    tier: str = ""
    priority: int = 0
    budget_nano: int | None = None
    max_rate_nano_per_hour: int | None = None
    attempt: int = 0
    notice_ms: int = 0
    site: str = ""
    node_key: str = ""  # the node's public key: its reports are checked against it; "" = none
    contract: int = field(default=0, compare=False)  # of the node's owner, as the books found it
    power: SitePower | None = field(default=None, compare=False)  # only as an order comes in

    @property
    def kind(self) -> tuple[str, str, str]:
        """What is rented where: the price book's key."""
        return self.chip, self.tier, self.site


@dataclass(frozen=True, slots=True)
class Quote:
    """What a lease would cost from now on; another rate or period opens a new segment.

    ``surcharge_nano_per_hour``: of the rate, what the job's priority adds, by the table of
    version ``priority_version`` (0 = there is none).
    """

    rate_nano_per_hour: int
    period: int = 0
    surcharge_nano_per_hour: int = 0
    priority_version: int = 0


@dataclass(frozen=True, slots=True)
class Funds:
    """By how much all charges plus holds may still grow. ``budget_nano``: the job's, if it has one.

    ``overdue``: what the tenant would have to pay first, in a sentence; empty = nothing.

    credit = tenant's credit - charges - all its holds; budget = job's budget - the job's charges
    and holds.
    """

    credit_nano: int
    budget_nano: int | None = None
    overdue: str = ""

    def refusal(self, cost_nano: int) -> Cause | None:
        """Why ``cost_nano`` more cannot be reserved, or None if it can."""
        if cost_nano <= 0:
            return None
        if self.overdue:
            return Cause.INVOICE_OVERDUE
        if self.budget_nano is not None and cost_nano > self.budget_nano:
            return Cause.BUDGET_EXHAUSTED
        return Cause.FUNDS_EXHAUSTED if cost_nano > self.credit_nano else None

    def after(self, effects: Iterable[Effect]) -> Funds:
        """What is left once ``effects`` are posted, for the next gang of the same call."""
        spent = sum(e.charge_nano + e.hold_nano for e in effects)
        budget = None if self.budget_nano is None else self.budget_nano - spent
        return Funds(self.credit_nano - spent, budget, self.overdue)


@dataclass(frozen=True, slots=True)
class GrantRow:
    """Billing's whole memory of a lease."""

    ask: Ask
    rate_nano_per_hour: int  # as authorised; segments carry the rates that were charged
    grant_ms: int
    state: State
    ends_at_ms: int  # HELD: end of the hold; later: end of the authority
    segments: tuple[Segment, ...] = ()  # empty = never granted
    spool_id: str | None = None
    counters: Counters = field(default_factory=dict)
    held_nano: int = 0
    charged_nano: int = 0
    cause: Cause | None = None
    surcharge_nano_per_hour: int = 0  # of the rate as authorised
    priority_version: int = 0

    @property
    def lease_id(self) -> str:
        return self.ask.lease_id

    @property
    def ever_granted(self) -> bool:
        return bool(self.segments)


@dataclass(frozen=True, slots=True)
class Report:
    """One lease of a ``Settle``. ``final``: these counters are the last, the sandbox is no more."""

    lease_id: str
    spool_id: str
    phase: Phase
    final: bool = False
    counters: Counters = field(default_factory=dict)
    text: str = ""  # as it was signed
    signature: bytes = b""  # empty = not signed


@dataclass(frozen=True, slots=True)
class Answer:
    """One lease of ``Settle``'s answer. ``valid_for_ms``: a span; 0 = no grant."""

    lease_id: str
    valid_for_ms: int
    last: bool
    reason: str
    segment: int
    rate_nano_per_hour: int
    final_acknowledged: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transition posts; all are differences. ``late_ns``: recorded, never charged."""

    lease_id: str
    charge_nano: int = 0
    hold_nano: int = 0
    suspense_ns: int = 0
    late_ns: int = 0


@dataclass(frozen=True, slots=True)
class Granted:
    lease_id: str
    rate_nano_per_hour: int


@dataclass(frozen=True, slots=True)
class Refused:
    lease_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Authorized:
    """``rows``: to insert (none when anything was refused)."""

    rows: tuple[GrantRow, ...]
    answers: tuple[Granted | Refused, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    rows: tuple[GrantRow, ...]
    answers: tuple[Answer, ...]
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    row: GrantRow
    wait_ms: int
    effect: Effect
