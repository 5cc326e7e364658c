"""What billing's use cases ask of the price book, in one transaction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gridlease_billing.domain.price import Kind, NewPrice, Price
from gridlease_billing.domain.priority import NewPriorityTable, PriorityTable
from gridlease_billing.domain.spot import ChipUse, LastMove


@dataclass(frozen=True, slots=True)
class SpotMove:
    """A spot price that moves: what it goes by, in which window, and its floor then."""

    use: ChipUse
    window: int
    before: Price
    price_nano_per_hour: int
    floor_nano: int


class PriceStore(Protocol):
    """The price book and the table of priorities."""

    async def in_force(self, wanted: Collection[Kind], now_ms: int) -> dict[Kind, Price]:
        """By what was wanted; the price of everywhere where a site has none of its own."""
        ...

    async def as_of(self, valid_ms: int, recorded_ms: int) -> list[Price]:
        """All that was in force at one time as the book stood at another, with their spans."""
        ...

    async def history(self) -> list[Price]:
        """Every entry ever."""
        ...

    async def find(self, request_id: str) -> Price | None: ...

    async def insert(self, price: NewPrice, now_ms: int) -> Price: ...

    async def priorities(self, now_ms: int) -> PriorityTable | None:
        """The table in force; None: no priority changes a price."""
        ...

    async def priorities_as_of(self, valid_ms: int, recorded_ms: int) -> PriorityTable | None: ...

    async def priority_history(self) -> list[PriorityTable]: ...

    async def find_priorities(self, request_id: str) -> PriorityTable | None: ...

    async def insert_priorities(self, new: NewPriorityTable, now_ms: int) -> PriorityTable: ...

    async def last_spot_moves(
        self, places: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], LastMove]:
        """By chip and site."""
        ...

    async def move_spot(self, move: SpotMove, now_ms: int) -> Price | None:
        """The new entry, in force from now on; None: this chip has moved in this window or since
        the price that this goes by."""
        ...
