"""What billing's use cases ask of the world: one transaction's stores, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gridlease_billing.contract_ports import CommitmentStore, TariffStore
from gridlease_billing.domain.evidence import Proof
from gridlease_billing.domain.excess import Excess
from gridlease_billing.domain.exchange import Exchanged
from gridlease_billing.domain.grant_row import Effect, GrantRow, Report
from gridlease_billing.domain.invoice import Invoice
from gridlease_billing.domain.issuer import (
    CoverDraw,
    LegalEntity,
    LineSplit,
    SignedReport,
    TaxProfile,
    TaxSource,
)
from gridlease_billing.domain.late import Correction, Written
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.settlement import Alarm
from gridlease_billing.domain.sla import Month, Stay
from gridlease_billing.domain.supplier import Contract
from gridlease_billing.domain.tick import Known
from gridlease_billing.domain.usage import Line, Stored
from gridlease_billing.footprint_ports import ToldWork
from gridlease_billing.price_ports import PriceStore
from gridlease_billing.receivable_ports import ReceivableStore
from gridlease_billing.supplier_ports import SupplierStore

T = TypeVar("T")
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Now:
    """The database's clock, read in the transaction; ``suspect``: it may have jumped lately."""

    ms: int
    suspect: bool


@dataclass(frozen=True, slots=True)
class Wallet:
    """A tenant's prepaid account: what was paid in less charges, and what of it is held."""

    account: int
    posted_nano: int
    held_nano: int

    @property
    def available_nano(self) -> int:
        return self.posted_nano - self.held_nano


@dataclass(frozen=True, slots=True)
class Change:
    """A lease as it was (None: a new one) and as it is now, and what that posts."""

    before: GrantRow | None
    after: GrantRow
    effect: Effect
    price_version: int = 0


@dataclass(frozen=True, slots=True)
class Credit:
    """A payment by a tenant."""

    tenant: str
    amount_nano: int
    request_id: str
    note: str


@dataclass(frozen=True, slots=True)
class JournalSummary:
    """The books' state."""

    sum_nano: int
    journal_count: int
    entry_count: int
    suspense_ns: int
    off_balance: int  # balances that differ from their entries or from their leases' holds


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Usage lines with their lease's state and invoice, newest lease first."""

    lines: Sequence[tuple[Line, str, str]]
    next_key: tuple[int, str] | None  # (opened_ms, lease) of the last lease, if more follow


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose leases: a tenant's, of one project or job where named."""

    tenant: str
    project: str = ""
    job: str = ""


class LeaseStore(Protocol):
    """Leases; every ``lock`` takes its rows in lease-id order."""

    async def lock(self, leases: Collection[str]) -> dict[str, Stored]: ...

    async def lock_gangs(self, asked: Collection[tuple[str, str]]) -> dict[str, Stored]:
        """Of (lease, node) those leases that are that node's, and all members of their gangs."""
        ...

    async def lock_due(self, now_ms: int, late_after_ms: int, limit: int) -> dict[str, Stored]:
        """Leases that time has moved on; those that others hold are left for the next time."""
        ...

    async def lock_billable(self, scope: Scope, limit: int) -> dict[str, Stored]:
        """FINAL leases with charged time and no invoice."""
        ...

    async def count_unfinished(self, scope: Scope) -> int:
        """How many leases are not FINAL yet."""
        ...

    async def spent_nano(self, jobs: Collection[str]) -> dict[str, int]:
        """Charges and holds of all leases of each job."""
        ...

    async def page(self, scope: Scope, after: tuple[int, str] | None, limit: int) -> list[Stored]:
        """Granted leases, newest first, after a key of (opened_ms, lease)."""
        ...

    async def quick(self, leases: Collection[str]) -> dict[str, Known]:
        """Those whose counters may move by themselves, and how."""
        ...

    async def insert(self, changes: Sequence[Change], now_ms: int) -> None: ...

    async def update(self, changes: Sequence[Change]) -> None: ...


@dataclass(frozen=True, slots=True)
class Suspended:
    """An excess, its lease, and the report that was not believed, where one was signed."""

    excess: Excess
    node: str
    project: str
    job: str
    node_key: str = ""
    report: str = ""
    signature: bytes = b""


class EvidenceStore(Protocol):
    """What nodes said, and what of it was not believed."""

    async def keep_signed(self, reports: Sequence[Report], now_ms: int) -> None:
        """Reports that were folded as they are: each proves all of its segments' counters."""
        ...

    async def keep_proofs(self, proofs: Sequence[Proof], now_ms: int) -> None:
        """The furthest word on each segment; where reports contradict each other, one a meter."""
        ...

    async def keep_doubted(self, doubted: Sequence[tuple[str, Report]], now_ms: int) -> None:
        """Kinds of alarms, each with the report that raised it; a lease's first is kept."""
        ...

    async def raise_alarms(self, alarms: Sequence[Alarm], now_ms: int) -> list[Alarm]:
        """Those that were not raised before."""
        ...

    async def excess(self, leases: Collection[str]) -> dict[str, dict[int, Excess]]:
        """What leases told beyond what may be charged, by segment."""
        ...

    async def put_excess(self, changed: Sequence[Excess], now_ms: int) -> None:
        """Under their leases' locks."""
        ...

    async def suspended(self, tenant: str, limit: int, *, closed: bool) -> list[Suspended]:
        """By lease. ``closed``: also those of which nothing lies in suspense any more."""
        ...


class LedgerStore(Protocol):
    """The double-entry books."""

    async def lock_wallets(self, tenants: Collection[str]) -> dict[str, Wallet]:
        """By tenant, locked in the order of accounts; a tenant without an account is absent."""
        ...

    async def wallet(self, tenant: str) -> Wallet | None: ...

    async def find_credit(self, tenant: str, request_id: str) -> Credit | None: ...

    async def credit(self, credit: Credit, now_ms: int) -> None: ...

    async def post(
        self, changes: Sequence[Change], wallets: Mapping[str, Wallet], now_ms: int
    ) -> None: ...

    async def tick(self, ids: Sequence[int], counts: Sequence[Sequence[int]]) -> set[int]:
        """Folds and charges counters about whose leases nothing is to be decided.

        Args:
            ids: Of ``Known.meter_id``, ascending, each once.
            counts: By meter of the catalogue, cumulative; an empty one says nothing.

        Returns:
            The ids of those that need a decision: nothing of theirs was folded.
        """
        ...

    async def journal(
        self,
        kind: str,
        key: str | None,
        cause: str,
        sides: Mapping[int, int],
        now_ms: int,
        holds: Mapping[int, int] | None = None,
    ) -> int:
        """Writes a balanced journal of amounts by account (> 0 a credit); its number.

        A key that was used before makes the transaction start again.
        """
        ...

    async def create_months(self, from_ms: int, months: int) -> int:
        """Makes the partitions of a month and those after it; how many are new."""
        ...

    async def receivable(self, tenant: str) -> int:
        """A tenant's account of what it owes beyond what it prepaid; made if there is none."""
        ...

    async def platform(self, kind: str, currency: str = CURRENCY) -> int:
        """The platform's own account of a kind; 0 = there is none in that currency."""
        ...

    async def open_wallet(self, tenant: str) -> Wallet:
        """A tenant's prepaid account; made if there is none."""
        ...

    async def exchanged(self, key: str) -> Exchanged | None:
        """The exchange whose second journal has that key."""
        ...

    async def exchange(self, first: int, second: int, it: Exchanged, now_ms: int) -> None:
        """Ties two journals by the rate between their currencies."""
        ...

    async def contracts(self, wanted: Collection[int]) -> dict[int, Contract]:
        """Owners' terms by the numbers that leases have of them; 0 is the platform's own."""
        ...

    async def used(self, keys: Collection[str]) -> set[str]:
        """Those of ``keys`` under which a journal is written."""
        ...

    async def posted(self, key: str, kind: str) -> tuple[str, int] | None:
        """A journal's cause, and what it moved on the platform's account of a kind."""
        ...

    async def charged_nano(self, leases: Collection[str]) -> int:
        """What the lines say these leases were charged."""
        ...

    async def summary(self) -> JournalSummary: ...


class InvoiceStore(Protocol):
    """Invoices as issued."""

    async def next_count(self, entity: str, kind: str, year: int) -> int:
        """The next number of an issuer's series and year; taken back if the transaction is."""
        ...

    async def find(self, tenant: str, request_id: str) -> Invoice | None: ...

    async def get(self, tenant: str, name: str, *, lock: bool = False) -> Invoice | None:
        """By name or number."""
        ...

    async def newest(self, scope: Scope, limit: int) -> list[Invoice]:
        """Without their lines."""
        ...

    async def insert(self, invoice: Invoice, request_id: str) -> None: ...

    async def finalize(self, invoice: Invoice) -> None: ...

    async def split(self, invoice: Invoice) -> None:
        """Writes down what each line asks for, once."""
        ...

    async def lock_splits(self, name: str) -> dict[int, LineSplit]: ...

    async def give_back(self, name: str, taken: Mapping[int, tuple[int, int]]) -> None:
        """``taken``: (net, tax) by position."""
        ...

    async def reports(self, name: str) -> list[SignedReport]: ...

    async def draws(self, name: str) -> list[CoverDraw]:
        """What stands behind an invoice's covers."""
        ...


class LineStore(Protocol):
    """Lines, corrections and credits of the books."""

    async def usage(self, leases: Collection[str]) -> list[Line]: ...

    async def corrections(self, scope: Scope) -> list[Line]:
        """Those that no invoice carries."""
        ...

    async def credits(self, scope: Scope) -> list[Line]:
        """Those that no invoice carries, oldest first; amounts below zero."""
        ...

    async def hours(self, scope: Scope) -> list[Line]:
        """Capacity bought ahead that no invoice carries: fees, and below zero what they covered."""
        ...

    async def behind(self, sources: Collection[str]) -> list[Line]:
        """The lines that some rows of the books make, whatever invoice carries them."""
        ...

    async def written(self, leases: Collection[str]) -> dict[str, dict[int, Written]]:
        """What the lines of leases say of run time, by segment."""
        ...

    async def correct(self, lease: str, found: Sequence[Correction], now_ms: int) -> None: ...


class SlaStore(Protocol):
    """How much of a month leases were there."""

    async def due(self, ended_by_ms: int, from_ms: int, limit: int) -> list[tuple[str, str, int]]:
        """(tenant, project, month) that ended, had something lost, and was not looked at."""
        ...

    async def stays(self, tenant: str, project: str, month_ms: int) -> list[Stay]:
        """A project's leases that ended in a month."""
        ...

    async def write(
        self, tenant: str, project: str, month_ms: int, month: Month, now_ms: int
    ) -> None:
        """A month is written once: a second time makes the transaction start again."""
        ...


class TaxStore(Protocol):
    """Who issues, to whom, at which tax."""

    async def entity(self, name: str) -> LegalEntity | None: ...

    async def entities(self) -> list[LegalEntity]: ...

    async def put_entity(self, it: LegalEntity) -> bool:
        """False: another entity's numbers begin so."""
        ...

    async def profile(self, tenant: str) -> TaxProfile | None: ...

    async def put_profile(self, it: TaxProfile) -> None: ...

    async def rates(self) -> list[TaxSource]: ...

    async def put_rate(self, it: TaxSource, now_ms: int) -> bool:
        """False: the country has an entry of that time."""
        ...


class Work(ToldWork, Protocol):
    """One transaction."""

    @property
    def suppliers(self) -> SupplierStore: ...

    @property
    def receivables(self) -> ReceivableStore: ...

    @property
    def commitments(self) -> CommitmentStore: ...

    @property
    def tariffs(self) -> TariffStore: ...

    @property
    def leases(self) -> LeaseStore: ...

    @property
    def ledger(self) -> LedgerStore: ...

    @property
    def prices(self) -> PriceStore: ...

    @property
    def invoices(self) -> InvoiceStore: ...

    @property
    def sla(self) -> SlaStore: ...

    @property
    def evidence(self) -> EvidenceStore: ...

    @property
    def lines(self) -> LineStore: ...

    @property
    def taxes(self) -> TaxStore: ...

    async def now(self) -> Now: ...


class Books(Protocol):
    """Runs work in one transaction: all of it committed, or none."""

    async def run(self, work: Callable[[Work], Awaitable[T]], *, tenant: str = EVERY) -> T:
        """``tenant``: whose rows the transaction may see and write; EVERY = the platform's work."""
        ...


class Printer(Protocol):
    """Makes an invoice a document: the same bytes each time."""

    def print(self, invoice: Invoice, language: str = "") -> bytes: ...
