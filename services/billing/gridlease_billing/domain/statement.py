"""A partner's statement: what its nodes earned, line by line as the customers' invoices have it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from gridlease_kernel.money import Money

from gridlease_billing.domain.invoice import moment
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.supplier import Contract, Split, split

LineKey: TypeAlias = tuple[int, str, int, str, str]  # recorded_ms, lease, segment, meter, class
FIRST_LINE: LineKey = (-(2**62), "", 0, "", "")
FIRST_MOVE = (-(2**62), 0)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = (
    "recorded_ms", "lease", "segment", "meter", "class", "node", "chip", "charged",
    "amount_nano", "payable_nano", "holdback_nano", "platform_nano", "contract_version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Partner:
    """A supplier as it stands. Nano-units of ``CURRENCY``."""

    name: str
    display_name: str
    contract: Contract | None
    nodes: tuple[str, ...]
    payable_nano: int
    holdback_nano: int
    recorded_ms: int
    payable_account: int = 0
    holdback_account: int = 0


@dataclass(frozen=True, slots=True)
class Earned:
    """A line of a customer, on a node of the supplier's; who the customer is stays unsaid."""

    recorded_ms: int
    lease: str
    segment: int
    meter: str
    kind: str
    node: str
    chip: str
    charged: int
    amount_nano: int
    contract: Contract

    @property
    def key(self) -> LineKey:
        return self.recorded_ms, self.lease, self.segment, self.meter, self.kind

    @property
    def parts(self) -> Split:
        """Where its amount went; a correction below zero takes back from each."""
        return split(self.contract, self.amount_nano)


@dataclass(frozen=True, slots=True)
class Moved:
    """Another journal that moved what is owed: a release, a payout, a credit that it bore."""

    recorded_ms: int
    kind: str
    cause: str
    payable_nano: int
    holdback_nano: int
    journal: int = 0

    @property
    def key(self) -> tuple[int, int]:
        return self.recorded_ms, self.journal


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all lines of a statement."""

    count: int
    parts: Split


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a statement begins: after a line, or, where all lines were told, after a
    move. ``until_ms``: the period's end, as the first page found it."""

    until_ms: int
    line: LineKey | None = FIRST_LINE
    move: tuple[int, int] = FIRST_MOVE


@dataclass(frozen=True, slots=True)
class Statement:
    """A page of one: its ``lines`` and ``moves``; all else is of the whole.

    ``opening``, ``closing``: (payable, holdback) at both ends; ``charged``: what charges posted
    in the period, of lines that ended in it and of leases that still run."""

    partner: Partner
    from_ms: int
    until_ms: int
    opening: tuple[int, int]
    charged: tuple[int, int]
    closing: tuple[int, int]
    lines: tuple[Earned, ...]
    moves: tuple[Moved, ...]
    moved: tuple[int, int]
    totals: Totals
    first: bool = True
    next_place: Place | None = None

    def __post_init__(self) -> None:
        """What it opens with and what moved is what it closes with."""
        for at in (0, 1):
            moved = self.opening[at] + self.charged[at] + self.moved[at]
            assert moved == self.closing[at], self


def render(statement: Statement, kind: str) -> tuple[bytes, str, str]:
    """(content, media type, file name) of a page as text, json or csv.

    Pages of text and CSV, one after another, are the file.
    """
    stem = statement.partner.name.replace("/", "-")
    stem = f"{stem}-{moment(statement.from_ms):%Y%m%d}-{moment(statement.until_ms):%Y%m%d}"
    if kind == "json":
        told = json.dumps(content(statement), indent=2, sort_keys=True, ensure_ascii=False)
        return f"{told}\n".encode(), "application/json", f"{stem}.json"
    if kind == "csv":
        return _csv(statement), "text/csv; charset=utf-8", f"{stem}.csv"
    text = "\n".join(_text(statement))
    return f"{text}\n".encode(), "text/plain; charset=utf-8", f"{stem}.txt"


def content(statement: Statement) -> Mapping[str, Any]:
    """What a statement says, as JSON has it."""
    return {
        "supplier": statement.partner.name,
        "display_name": statement.partner.display_name,
        "currency": CURRENCY,
        "from_ms": statement.from_ms,
        "until_ms": statement.until_ms,
        "lines": list(_rows(statement.lines)),
        "moves": [
            {name: value for name, value in asdict(it).items() if name != "journal"}
            for it in statement.moves
        ],
        "totals": {
            "line_count": statement.totals.count,
            "amount_nano": statement.totals.parts.total_nano,
            "payable_nano": statement.totals.parts.payable_nano,
            "holdback_nano": statement.totals.parts.holdback_nano,
            "platform_nano": statement.totals.parts.revenue_nano,
        },
        **{
            name: {"payable_nano": both[0], "holdback_nano": both[1]}
            for name, both in (
                ("opening", statement.opening),
                ("charged", statement.charged),
                ("closing", statement.closing),
            )
        },
    }


def _rows(lines: Sequence[Earned]) -> Iterator[dict[str, Any]]:
    for it in lines:
        parts = it.parts
        values = (
            it.recorded_ms, it.lease, it.segment, it.meter, it.kind, it.node, it.chip, it.charged,
            it.amount_nano, parts.payable_nano, parts.holdback_nano, parts.revenue_nano,
            it.contract.version,
        )  # fmt: skip
        yield dict(zip(_COLUMNS, values, strict=True))


def _csv(statement: Statement) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    if statement.first:
        writer.writerow(_COLUMNS)
    for row in _rows(statement.lines):
        writer.writerow([_cell(value) for value in row.values()])
    return file.getvalue().encode()


def _cell(value: object) -> object:
    """Words that a spreadsheet would compute are told to be words."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _text(statement: Statement) -> Iterator[str]:
    if statement.first:
        yield from _head(statement)
    for it in statement.lines:
        parts = it.parts
        where = f"{it.node}  {it.chip}  {it.lease}/{it.segment}  {it.meter}"
        yield f"{moment(it.recorded_ms):%Y-%m-%d}  {where}"
        yield (
            f"    customer {_money(it.amount_nano)} = yours {_money(parts.payable_nano)}"
            f" + kept back {_money(parts.holdback_nano)} + platform {_money(parts.revenue_nano)}"
        )
    for move in statement.moves:
        yield f"{moment(move.recorded_ms):%Y-%m-%d}  {move.kind}  {move.cause}"
        yield f"    payable {_money(move.payable_nano)}, kept back {_money(move.holdback_nano)}"
    if statement.next_place is None:
        yield from _foot(statement)


def _head(statement: Statement) -> Iterator[str]:
    partner = statement.partner
    yield f"STATEMENT  {partner.display_name or partner.name} ({partner.name})"
    span = (
        f"{moment(statement.from_ms):%Y-%m-%d %H:%M} to {moment(statement.until_ms):%Y-%m-%d %H:%M}"
    )
    yield f"period     {span} UTC; amounts in {CURRENCY}"
    yield ""


def _foot(statement: Statement) -> Iterator[str]:
    yield ""
    parts = statement.totals.parts
    yield (
        f"{statement.totals.count} lines: customers {_money(parts.total_nano)} = yours"
        f" {_money(parts.payable_nano)} + kept back {_money(parts.holdback_nano)}"
        f" + platform {_money(parts.revenue_nano)}"
    )
    for name, both in (
        ("opening", statement.opening),
        ("charged", statement.charged),
        ("closing", statement.closing),
    ):
        yield f"{name:10} payable {_money(both[0])}, kept back {_money(both[1])}"


def _money(nano: int) -> str:
    return str(Money(nano))
