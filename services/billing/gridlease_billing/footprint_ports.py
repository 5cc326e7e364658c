"""What use cases ask of the world about the energy and carbon of leases, and what jobs cost now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridlease_billing.domain.carbon import Embodied, SitePower
from gridlease_billing.domain.energy_use import Draw
from gridlease_billing.domain.footprint_line import Telling, Told
from gridlease_billing.domain.job_cost import JobCost


@dataclass(frozen=True, slots=True)
class Drew:
    """A lease's energy by segment, (millijoules, starts_ms, span_ms), and what is known of it.

    ``numbers``: of the segments. ``draw``: what its devices draw by the catalogue.
    """

    of: Told
    numbers: tuple[int, ...]
    segments: tuple[tuple[int, int, int], ...]
    power: SitePower | None
    draw: Draw | None
    embodied: Embodied | None


class FootprintStore(Protocol):
    """Energy and carbon of leases, and what invoices have told of them."""

    async def drew(self, tenant: str, job: str, limit: int) -> list[Drew]: ...

    async def drew_of(self, leases: Collection[str]) -> list[Drew]: ...

    async def embodied(self, chip: str) -> Embodied | None:
        """What an operator has written down of a chip."""
        ...

    async def put_embodied(self, chip: str, it: Embodied, request_id: str, now_ms: int) -> None: ...

    async def keep_draws(self, draws: Mapping[str, Draw], now_ms: int) -> None:
        """By chip: writes those down that are new, or are not as they were."""
        ...

    async def told(self, leases: Collection[str]) -> list[Telling]:
        """What invoices have told of leases, oldest first."""
        ...

    async def tell(self, tellings: Sequence[Telling], invoice: str, now_ms: int) -> None:
        """Writes down what an invoice tells, for ever."""
        ...


class CostStore(Protocol):
    """What leases cost as they stand."""

    async def of_job(self, tenant: str, job: str) -> JobCost: ...


class ToldWork(Protocol):
    """The part of a transaction that tells and moves no money."""

    @property
    def footprints(self) -> FootprintStore: ...

    @property
    def costs(self) -> CostStore: ...
