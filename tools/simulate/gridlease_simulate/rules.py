"""How a run is played, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_simulate.spot import SpotPrices


@dataclass(frozen=True, slots=True)
class Rules:
    """How a run is played. Spans in milliseconds; 0 = none.

    ``checkpoint_ms``: work kept at an eviction is what was done up to the last multiple of it.
    ``restart_ms``: what each start after the first loses. ``until_ms``: the run stops there.
    ``rest_ms``: while jobs wait, decisions are at least so far apart.
    """

    checkpoint_ms: int = 900_000
    restart_ms: int = 30_000
    notice_ms: int = 30_000
    until_ms: int = 0
    rest_ms: int = 0
    reference: str = ""
    spot: SpotPrices | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    now_ms: int
    ended: int
    total: int
