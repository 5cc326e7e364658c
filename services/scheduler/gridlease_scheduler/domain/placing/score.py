"""Of all the ways to place a task, which is tried first? Lower is better; ties go by chip's name.

Real nodes come before emulated ones, always. Then the purpose's own order of chips
(``preference``), then the cheapest or cleanest energy (watts x PUE x price); a task for CPUs alone
stays off nodes whose CPUs feed accelerators. Which node it is among those of one chip, the price of
its state decides (``packing``): idle devices are stranded the least.

The slow path's advice has its word where the purpose leaves a choice: a training job tries scarce
chips in which its class has no share after others of the same kind, whatever its work costs there;
where all else is equal, any job leaves the chip that is worth more to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from gridlease_scheduler.domain.chips import AcceleratorNeed, Catalogue
from gridlease_scheduler.domain.job import Needs, Purpose
from gridlease_scheduler.domain.slow.advice import NO_LOOKUP, Lookup
from gridlease_scheduler.domain.snapshot import Prices, price_at
from gridlease_scheduler.domain.software.suitable import suits

from . import preference
from .feasible import amounts, barred, chips_of, may_be_emulated, wanted
from .index import CPU, Index, Kind
from .shelf import Shelf, shelf

Rank: TypeAlias = tuple[int, ...]
_BEFORE_PRICE = 4  # emulated, crowd, alternative, kind
Energy: TypeAlias = Mapping[str, tuple[int, int]]  # by site: nano-units and mg CO2 a watt-hour
_NO_ENERGY: Energy = {}


def ways(
    index: Index,
    needs: Needs,
    prices: Prices,
    energy: Energy = _NO_ENERGY,
    advice: Lookup = NO_LOOKUP,
) -> tuple[tuple[str, Shelf], ...]:
    """Chips and where members may go on each, the best first."""
    catalogue = index.catalogue
    emulated_ok = may_be_emulated(
        needs, {chip for chip, count in index.real.items() if count > 0}, catalogue
    )
    groups: dict[tuple[Rank, str, int, tuple[int, int, int]], set[int]] = {}
    for place, need in enumerate(wanted(needs)):
        for kind in index.kinds.values():
            if kind.like.emulated and not emulated_ok:
                continue
            for chip in chips_of(need, kind.like, catalogue):
                if barred(needs, kind.like) is None and suits(needs, kind.like, chip, catalogue):
                    rank = (
                        *_rank(needs, need, kind, chip, place, catalogue, prices),
                        _energy(needs, need, kind, chip, catalogue, energy),
                    )
                    rank = _advised(rank, needs, chip, advice)
                    count = need.count if need is not None else 0
                    held = amounts(needs, kind.like)
                    groups.setdefault((rank, chip, count, held), set()).add(kind.serial)
    return tuple(
        (
            chip,
            shelf(
                index, chip if count else CPU, frozenset(kinds), count, *held,
                needs.network.guaranteed_mbps,
            ),
        )
        for (_, chip, count, held), kinds in sorted(groups.items(), key=lambda x: x[0])
    )  # fmt: skip


def _rank(
    needs: Needs,
    need: AcceleratorNeed | None,
    kind: Kind,
    chip: str,
    place: int,
    catalogue: Catalogue,
    prices: Prices,
) -> Rank:
    wish = preference.Wish(
        needs.purpose,
        latency_target_us=needs.latency_us,
        ordered=needs.alternatives_ordered,
    )
    candidate = preference.Candidate(
        chip,
        catalogue.find(chip),
        count=need.count if need is not None else 1,
        price_nano_per_hour=price_at(prices, chip, needs.tier, kind.like.site),
        alternative=place,
    )
    like = kind.like
    crowd = 0 if need is not None else len(like.devices)
    return (int(like.emulated), crowd, *preference.key(wish, candidate))


def _energy(
    needs: Needs,
    need: AcceleratorNeed | None,
    kind: Kind,
    chip: str,
    catalogue: Catalogue,
    energy: Energy,
) -> int:
    """What a member's energy costs there in an hour at its peak, or emits where that was asked."""
    rate = energy.get(kind.like.site)
    entry = catalogue.find(chip)
    if rate is None or entry is None:
        return 0
    watts = entry.peak_watts * need.count if need is not None else 0
    core = catalogue.find(kind.like.cpu_chip)
    watts_milli = watts * 1_000 + (core.peak_watts if core else 0) * needs.cpu_milli
    return watts_milli * rate[needs.low_carbon] // 1_000


def _advised(rank: Rank, needs: Needs, chip: str, advice: Lookup) -> Rank:
    """With the slow path's word: for training before the price of the work, else behind all."""
    at = _BEFORE_PRICE if needs.purpose is Purpose.TRAINING else len(rank)
    return (*rank[:at], advice.behind(needs, chip), *rank[at:], advice.price(chip))


def words(purpose: Purpose) -> str:
    """What was looked for, in words."""
    match purpose:
        case Purpose.TRAINING:
            return "the most work for the price"
        case Purpose.INFERENCE:
            return "the least power"
        case Purpose.BATCH:
            return "the lowest cost"
