"""What use cases ask of the world about capacity bought ahead, tariffs, energy and carbon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.commitment import Commitment, Drawn, Pot, Use
from gridlease_billing.domain.meter_price import Entry, Priced
from gridlease_billing.domain.rating import Tariff


@dataclass(frozen=True, slots=True)
class Bought:
    """A commitment as it was bought."""

    pot: Commitment
    project: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Known:
    """A commitment with its hours so far."""

    bought: Bought
    recorded_ms: int
    hours: int
    size_milli_ns: int
    used_milli_ns: int
    fee_nano: int
    cover_nano: int


@dataclass(frozen=True, slots=True)
class Using:
    """A segment's use, its rate, and how much of it pots of earlier hours covered."""

    use: Use
    rate_nano_per_hour: int
    before_milli_ns: int


@dataclass(frozen=True, slots=True)
class Covered:
    """A draw, and what its usage had been charged."""

    drawn: Drawn
    cover_nano: int


@dataclass(frozen=True, slots=True)
class Hour:
    """A pot's hour as it is billed."""

    pot: Pot
    tenant: str
    fee_nano: int
    cover_nano: int


@dataclass(frozen=True, slots=True)
class NewTariff:
    """An entry to write; ``effective_ms`` None = from now on."""

    meter: str
    site: str
    tariff: Tariff
    pass_through: bool
    effective_ms: int | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Told:
    """What the lines of a segment's meter say: all that is charged, by which version of its price,
    and when the first was written."""

    charged: int
    version: int
    recorded_ms: int


class CommitmentStore(Protocol):
    """Capacity bought ahead."""

    async def find(self, tenant: str, request_id: str) -> Known | None: ...

    async def known(self, tenant: str) -> list[Known]: ...

    async def insert(self, bought: Bought, price_version: int, now_ms: int) -> None: ...

    async def due(self, until_ms: int, limit: int) -> list[tuple[str, int]]:
        """(tenant, hour) that began no later and are not billed, oldest first."""
        ...

    async def running(self, tenant: str, hour_ms: int) -> list[Commitment]: ...

    async def uses(self, tenant: str, hour_ms: int) -> list[Using]:
        """Segments on demand or reserved that may have run in the hour."""
        ...

    async def write(self, hour: Hour, covered: Sequence[Covered], now_ms: int) -> None: ...


class TariffStore(Protocol):
    """Prices beyond run time, and what energy is at a site."""

    async def entries(self) -> list[Entry]: ...

    async def find(self, request_id: str) -> Entry | None: ...

    async def insert(self, new: NewTariff, now_ms: int) -> None: ...

    async def add(self, tenant: str, entry: Entry, month: int, count: int) -> int:
        """Adds to a tenant's total of a month; what it was before."""
        ...

    async def write(self, priced: Sequence[Priced], now_ms: int) -> None:
        """As lines of the books."""
        ...

    async def told(self, lease: str) -> dict[tuple[int, str], Told]:
        """What the lines of a final lease say, by segment and meter."""
        ...

    async def correct(self, priced: Sequence[Priced], now_ms: int) -> None:
        """As lines that correct what is written."""
        ...

    async def least(self, lease: str) -> Priced | None:
        """What a final lease was charged to come to the least that one costs: what of that is
        left, and the run time that it counted."""
        ...

    async def power(self, lease: str) -> SitePower | None: ...
