"""Capacity bought ahead, by the hour: which usage it covers, and what of it was left unused.

A commitment is a pot that is filled anew each hour: so many devices of one chip. Usage draws on it
in a stable order; what draws is paid with the pot, what does not is rated on its own, and what is
left of the pot at the hour's end is lost to its holder, and shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HOUR_MS = 3_600_000
_NS_A_MS = 1_000_000
HOUR_NS = HOUR_MS * _NS_A_MS


@dataclass(frozen=True, slots=True)
class Commitment:
    """``quantity_milli`` devices of a chip in each hour of ``[starts_ms, ends_ms)``.

    Both ends stand on whole hours. ``site`` empty = at any.
    """

    id: str
    tenant: str
    chip: str
    quantity_milli: int
    starts_ms: int
    ends_ms: int
    rate_nano_per_hour: int  # of the whole pot, used or not
    site: str = ""

    def __post_init__(self) -> None:
        """It spans whole hours and holds something."""
        assert self.starts_ms % HOUR_MS == 0 == self.ends_ms % HOUR_MS, self
        assert self.starts_ms < self.ends_ms, self
        assert self.quantity_milli > 0, self


@dataclass(frozen=True, slots=True)
class Use:
    """A stretch of a lease: ``quantity_milli`` devices from ``starts_ms`` on, for ``span_ns``."""

    lease: str
    segment: int
    tenant: str
    chip: str
    site: str
    quantity_milli: int
    starts_ms: int
    span_ns: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one use drew from one pot in one hour, in thousandths of device-nanoseconds."""

    commitment: str
    hour_ms: int
    lease: str
    segment: int
    milli_ns: int


@dataclass(frozen=True, slots=True)
class Pot:
    """One commitment in one hour, in thousandths of device-nanoseconds."""

    commitment: str
    hour_ms: int
    size_milli_ns: int
    used_milli_ns: int

    @property
    def unused_milli_ns(self) -> int:
        return self.size_milli_ns - self.used_milli_ns


@dataclass(frozen=True, slots=True)
class Matched:
    """All that was drawn, and every pot of the period; a use's rest is rated on its own."""

    drawn: tuple[Drawn, ...]
    pots: tuple[Pot, ...]

    def covered(self) -> Mapping[tuple[str, int], int]:
        """By (lease, segment): how much of it the pots paid, in thousandths of device-ns."""
        sums: dict[tuple[str, int], int] = {}
        for each in self.drawn:
            key = (each.lease, each.segment)
            sums[key] = sums.get(key, 0) + each.milli_ns
        return sums


def match(
    commitments: Iterable[Commitment], uses: Iterable[Use], from_ms: int, until_ms: int
) -> Matched:
    """Who draws on what in ``[from_ms, until_ms)``, whole hours.

    Pots are drawn on in the order of their start, then id; uses draw in the order of their start,
    lease and segment. So the answer is the same whatever order they come in, and whenever it is
    asked.
    """
    assert from_ms % HOUR_MS == 0 == until_ms % HOUR_MS, (from_ms, until_ms)
    pots = sorted(commitments, key=lambda it: (it.starts_ms, it.id))
    wanted = _by_hour(uses, from_ms, until_ms)
    drawn: list[Drawn] = []
    filled: list[Pot] = []
    for hour_ms in range(from_ms, until_ms, HOUR_MS):
        left = wanted.get(hour_ms, {})
        for pot in pots:
            if not pot.starts_ms <= hour_ms < pot.ends_ms:
                continue
            size = pot.quantity_milli * HOUR_NS
            taken = list(_draw(pot, hour_ms, size, left))
            drawn += taken
            filled.append(Pot(pot.id, hour_ms, size, sum(it.milli_ns for it in taken)))
    return Matched(tuple(drawn), tuple(filled))


def _draw(pot: Commitment, hour_ms: int, size: int, left: dict[Use, int]) -> Iterable[Drawn]:
    for use, amount in left.items():
        fits = (use.tenant, use.chip) == (pot.tenant, pot.chip) and pot.site in ("", use.site)
        taken = min(size, amount) if fits else 0
        if taken:
            size -= taken
            left[use] = amount - taken
            yield Drawn(pot.id, hour_ms, use.lease, use.segment, taken)


def _by_hour(uses: Iterable[Use], from_ms: int, until_ms: int) -> dict[int, dict[Use, int]]:
    """What each use wants of each hour, uses in their stable order."""
    wanted: dict[int, dict[Use, int]] = {}
    for use in sorted(uses, key=lambda it: (it.starts_ms, it.lease, it.segment)):
        start_ns = use.starts_ms * _NS_A_MS
        for hour_ms in range(
            max(from_ms, use.starts_ms // HOUR_MS * HOUR_MS),
            min(until_ms, -(-(start_ns + use.span_ns) // HOUR_NS) * HOUR_MS),
            HOUR_MS,
        ):
            begin = max(start_ns, hour_ms * _NS_A_MS)
            end = min(start_ns + use.span_ns, (hour_ms + HOUR_MS) * _NS_A_MS)
            wanted.setdefault(hour_ms, {})[use] = (end - begin) * use.quantity_milli
    return wanted
