"""What would become of a job now: where it goes or why not, when, on which chip, at what cost.

For a dry run, and for the explanation of a job that waits or runs. Nothing is decided here: the
same policies answer as in a pass, on a copy of the fleet; ``earliest_ms`` is backfill's shadow.

    forecast(task, expected_ms, snapshot) -> Forecast

A price is that of the whole job, all of its tasks, by the hour and over its expected time. Where a
chip is faster or slower than the one it would get, the time is scaled by the catalogue's throughput
for its purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .chips import CPU_VENDOR, AcceleratorNeed, Catalogue, Chip, Work
from .job import Needs, Purpose, Reason
from .node import Node
from .plan import Placed, Waiting
from .ruling import Ruling, rule
from .snapshot import Pending, Snapshot, price_at, prices_of

_MILLI = 1_000
_HOUR_MS = 3_600_000
_OPTIONS = 12  # the cheapest of those that could carry it, and what it asks for
_WORK = {
    Purpose.TRAINING: Work.TRAINING,
    Purpose.INFERENCE: Work.INFERENCE,
    Purpose.BATCH: Work.BATCH,
}


@dataclass(frozen=True, slots=True)
class Option:
    """The job on one chip. Amounts are of the whole job; None = the price is not known."""

    chip: str
    placeable: bool
    asked_for: bool
    reason: Reason
    rate_nano_per_hour: int | None
    amount_nano: int | None
    duration_ms: int
    relative_milli: int
    earliest_ms: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """``earliest_ms``: when it could begin, at the latest; None = nobody knows."""

    decision: Placed | Waiting
    earliest_ms: int | None
    remedies: tuple[str, ...]
    options: tuple[Option, ...]
    rate_nano_per_hour: int | None
    amount_nano: int | None
    duration_ms: int
    victims: tuple[str, ...] = ()  # jobs that would be told to end for it

    @property
    def chip(self) -> str:
        """What it would get; empty = nothing now."""
        return self.decision.allocation.chip if isinstance(self.decision, Placed) else ""


@dataclass(frozen=True, slots=True)
class _Look:
    task: Pending
    expected_ms: int
    snapshot: Snapshot

    @property
    def needs(self) -> Needs:
        return self.task.needs

    def rule(self, needs: Needs, chip: str = "") -> Ruling:
        """What a pass would decide if this were all that waits; on nodes of one chip alone."""
        task, nodes = replace(self.task, needs=needs), self.snapshot.nodes
        if chip:
            mine = tuple(x for x in nodes if _has(x, chip))
            nodes = mine or nodes  # nobody has it: all of them say so
        return rule(replace(self.snapshot, pending=(task,), nodes=nodes))

    def price(self, chip: str, site: str) -> int | None:
        """At a site; where that is not known, what is asked at the cheapest."""
        offers = [x for x in self.snapshot.offers if (x.chip, x.tier) == (chip, self.needs.tier)]
        if site:
            return price_at(prices_of(offers), chip, self.needs.tier, site)
        return min((x.price_nano_per_hour for x in offers), default=None)

    def site(self, answer: Placed | Waiting) -> str:
        """Where it would run; empty = not known."""
        if not isinstance(answer, Placed):
            return ""
        first = answer.members[0].node_id
        return next((x.site for x in self.snapshot.nodes if x.node_id == first), "")

    def milli(self, accelerators: bool) -> int:
        need = self.needs.accelerator
        one = need.count * _MILLI if accelerators and need is not None else self.needs.cpu_milli
        return one * self.task.tasks


def forecast(task: Pending, expected_ms: int, snapshot: Snapshot) -> Forecast:
    """What would become of the job if a pass came to it now, and nothing else waited."""
    look = _Look(task, expected_ms, snapshot)
    ruling = look.rule(task.needs)
    [decision] = ruling.decisions
    chip = decision.allocation.chip if isinstance(decision, Placed) else _first(task, snapshot)
    found = _options(look, chip, decision)
    mine = next((x for x in found if x.chip == chip), None)
    return Forecast(
        decision=decision,
        earliest_ms=_earliest_ms(ruling, snapshot.now_ms),
        remedies=_remedies(decision, found),
        options=found,
        rate_nano_per_hour=mine.rate_nano_per_hour if mine else None,
        amount_nano=mine.amount_nano if mine else None,
        duration_ms=expected_ms,
        victims=tuple(victim.job for each in ruling.evictions for victim in each.victims),
    )


def options(task: Pending, expected_ms: int, snapshot: Snapshot, chip: str) -> tuple[Option, ...]:
    """The job on each chip that could carry it; ``chip``: the one that it has."""
    return _options(_Look(task, expected_ms, snapshot), chip, None)


def _earliest_ms(ruling: Ruling, now_ms: int) -> int | None:
    """Now, or by when enough will certainly have come free."""
    if isinstance(ruling.decisions[0], Placed):
        return now_ms
    return ruling.shadows[0].start_ms if ruling.shadows else None


def _first(task: Pending, snapshot: Snapshot) -> str:
    """The chip that a job which waits is measured against: the first that it asks for."""
    for need in _needs(task.needs):
        for chip in snapshot.catalogue.matching(need):
            return chip.name
    cpus = [x.cpu_chip for x in snapshot.nodes if x.cpu_chip]
    return cpus[0] if cpus and task.needs.accelerator is None else ""


def _needs(needs: Needs) -> tuple[AcceleratorNeed, ...]:
    return () if needs.accelerator is None else (needs.accelerator, *needs.alternatives)


def _options(look: _Look, base: str, decision: Placed | Waiting | None) -> tuple[Option, ...]:
    catalogue = look.snapshot.catalogue
    found = [
        _option(look, chip, catalogue.find(base), decision)
        for chip in _candidates(look.needs, look.snapshot)
    ]
    found.sort(key=_cheapest)
    asked = [x for x in found if x.asked_for]
    others = [x for x in found if not x.asked_for]
    kept = asked + others[: max(0, _OPTIONS - len(asked))]
    return tuple(sorted(kept, key=_cheapest))


def _cheapest(option: Option) -> tuple[bool, int, int, str]:
    unknown = option.rate_nano_per_hour is None
    cost = option.amount_nano if option.amount_nano is not None else option.rate_nano_per_hour
    return (unknown, cost or 0, -option.relative_milli, option.chip)


def _candidates(needs: Needs, snapshot: Snapshot) -> list[Chip]:
    """Chips of the fleet that could carry the job: what it asks for, and others with as much
    memory as the smallest chip that it asks for."""
    catalogue = snapshot.catalogue
    wanted = _needs(needs)
    real = not needs.allow_emulated
    if not wanted:
        names = {x.cpu_chip for x in snapshot.nodes if not (real and x.emulated)}
        return [x for x in catalogue.chips if x.vendor == CPU_VENDOR and x.name in names]
    asked = {chip.name for need in wanted for chip in catalogue.matching(need)}
    sizes = [x.memory_bytes for x in catalogue.accelerators() if x.name in asked]
    least = max(min(sizes, default=0), wanted[0].memory_min_bytes)
    here = {
        device.chip
        for node in snapshot.nodes
        for device in node.devices
        if not (real and (node.emulated or device.emulated))
    }
    return [
        chip
        for chip in catalogue.accelerators()
        if chip.name in asked or (chip.name in here and chip.memory_bytes >= least)
    ]


def _option(
    look: _Look, chip: Chip, base: Chip | None, decision: Placed | Waiting | None
) -> Option:
    asked = _asked_for(look.needs, chip, look.snapshot.catalogue)
    needs = _on(look.needs, chip)
    ruling = look.rule(needs, chip.name)
    answer = ruling.decisions[0]
    if isinstance(decision, Placed) and decision.allocation.chip == chip.name:
        answer = decision
    placeable = isinstance(answer, Placed)
    relative = _relative(look.needs, chip, base)
    duration = look.expected_ms * _MILLI // relative if relative else look.expected_ms
    price = look.price(chip.name, look.site(answer))
    rate = None if price is None else price * look.milli(chip.vendor != CPU_VENDOR) // _MILLI
    amount = None if rate is None or not duration else rate * duration // _HOUR_MS
    return Option(
        chip=chip.name,
        placeable=placeable,
        asked_for=asked,
        reason=Reason() if placeable else answer.reason,
        rate_nano_per_hour=rate,
        amount_nano=amount,
        duration_ms=duration,
        relative_milli=relative,
        earliest_ms=_earliest_ms(ruling, look.snapshot.now_ms),
    )


def _has(node: Node, chip: str) -> bool:
    return node.cpu_chip == chip or any(device.chip == chip for device in node.devices)


def _asked_for(needs: Needs, chip: Chip, catalogue: Catalogue) -> bool:
    if needs.accelerator is None:
        return True
    return any(chip in catalogue.matching(need) for need in _needs(needs))


def _on(needs: Needs, chip: Chip) -> Needs:
    """The same needs, of this chip alone."""
    if needs.accelerator is None:
        return needs
    only = AcceleratorNeed(chips=(chip.name,), count=needs.accelerator.count)
    return replace(needs, accelerator=only, alternatives=())


def _relative(needs: Needs, chip: Chip, base: Chip | None) -> int:
    """Throughput against the base chip, in thousandths; 0 = not known."""
    work = _WORK[needs.purpose]
    if base is None or not base.throughput_for(work):
        return 0
    return chip.throughput_for(work) * _MILLI // base.throughput_for(work)


def _remedies(decision: Placed | Waiting, found: tuple[Option, ...]) -> tuple[str, ...]:
    """What would change it, most effective first; nothing for a job that would be placed."""
    if isinstance(decision, Placed):
        return ()
    words = [
        f"Allow {x.chip} as well: there it could begin at once."
        for x in found
        if x.placeable and not x.asked_for
    ][:2]
    if decision.reason.hint:
        words.append(decision.reason.hint)
    return tuple(words)
