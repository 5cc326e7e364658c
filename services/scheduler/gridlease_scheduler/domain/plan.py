"""The whole decision of one cycle: who is placed where, and why the others wait.

``Snapshot -> tuple[Placed | Waiting, ...]``, in the order of priority and then of age. A job that
does not fit does not hold up those after it. Within one plan nodes only fill up, so jobs with
equal needs share one answer once the first of them had to wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from . import explain
from .chips import Catalogue
from .job import Allocation, Needs, Reason
from .node import Node, has_room, with_held
from .placing.fragmentation import WHOLE, Request
from .placing.gang import Seat, room, seat
from .placing.index import CPU, MIB, Index
from .placing.score import ways
from .placing.shelf import Shelf
from .slow.advice import NO_LOOKUP, Lookup
from .snapshot import Pending, Prices, Snapshot, prices_of

_FRESH_MS = 1_000  # so long the words for a refusal stand before they are made anew


@dataclass(frozen=True, slots=True)
class Member:
    """One task of a job, and what it is given of which node. ``path``: links that its traffic
    takes and that keep what it is promised."""

    index: int
    node_id: str
    allocation: Allocation
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """All members of a job have places."""

    task: Pending
    members: tuple[Member, ...]
    choice: explain.Choice

    @property
    def node_id(self) -> str:
        """Of its first member."""
        return self.members[0].node_id

    @property
    def allocation(self) -> Allocation:
        """Of its first member."""
        return self.members[0].allocation

    @property
    def reason(self) -> Reason:
        """Why it went where it went."""
        held = [(x.node_id, x.allocation) for x in self.members]
        return explain.placed(self.task.needs, held, self.choice)


@dataclass(frozen=True, slots=True)
class Waiting:
    """It waits. ``ruled_out``: how many nodes each code rules out."""

    task: Pending
    reason: Reason
    ruled_out: dict[str, int]


Decision: TypeAlias = Placed | Waiting

__all__ = [
    "Decision", "Member", "Pending", "Placed", "Planner", "Snapshot", "Waiting", "decide", "plan",
    "still_valid",
]  # fmt: skip


@dataclass(slots=True)
class _Refusal:
    """Why jobs of one kind wait, as long as nothing that they could use comes free."""

    stamp: tuple[int, ...]
    reason: Reason
    ruled_out: dict[str, int]
    made_ms: int


@dataclass(slots=True)
class _Ask:
    """What one set of needs means on this index. ``version``: of the index, when it was made."""

    needs: Needs
    version: int
    ways: tuple[tuple[str, Shelf], ...]
    request: Request
    refused: dict[int, _Refusal] = field(default_factory=dict)  # by number of members


@dataclass(slots=True)
class Planner:
    """Decides on an index that may outlive a plan; what it remembers, it could find out again."""

    index: Index
    prices: Prices = field(default_factory=dict)
    energy: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    advice: Lookup = NO_LOOKUP
    _asks: dict[Needs, _Ask] = field(default_factory=dict)
    _by_id: dict[int, _Ask] = field(default_factory=dict)
    _choices: dict[bool, explain.Choice] = field(default_factory=dict)

    def decide(self, task: Pending, now_ms: int = 0, barred: Collection[str] = ()) -> Decision:
        """Where one job goes, given what is free now; what it gets is taken.

        Args:
            barred: Chips that it may not have now; where it could only have those, the reason for
                its waiting is left to who knows why.
        """
        ask = self._known(task.needs)
        if ask.refused:
            known = ask.refused.get(task.tasks)
            if known is not None and known.stamp == self._stamp(ask):
                return Waiting(task, known.reason, known.ruled_out)
        index, needs = self.index, task.needs
        for chip, way in self._ways(task, ask):
            if chip in barred:
                continue
            seats = seat(index, way, task.tasks, needs.span, needs.image)
            if seats is not None:
                members = [_member(task, at, each, chip, way) for at, each in enumerate(seats)]
                return Placed(task, tuple(members), self._choice(seats[0][0].node.emulated))
        return Waiting(task, Reason(), {}) if barred else self._refused(task, ask, now_ms)

    def _ways(self, task: Pending, ask: _Ask) -> Sequence[tuple[str, Shelf]]:
        """The job's ways, that of the chip preferred for it first."""
        preferred = self.advice.preferred
        chip = preferred.get(task.job) if preferred else None
        if chip is None:
            return ask.ways
        return sorted(ask.ways, key=lambda way: way[0] != chip)

    def chips(self, needs: Needs) -> tuple[tuple[str, int], ...]:
        """Chips that a task could have on nodes as they are, the best first, and how much of one
        a member then holds, in thousandths."""
        return tuple(
            (chip, WHOLE * way.shape.devices if way.shape.devices else way.shape.cpu_milli)
            for chip, way in self._known(needs).ways
        )

    def release(self, placed: Placed) -> None:
        """A placement is not to be: what it took is free again."""
        mbps = placed.task.needs.network.guaranteed_mbps
        for member in placed.members:
            self.index.release(member.node_id, member.allocation, mbps)

    def _choice(self, emulated: bool) -> explain.Choice:
        """What is said about all placements alike."""
        known = self._choices.get(emulated)
        nodes = len(self.index.hosts)
        if known is None or known.nodes != nodes:
            known = self._choices[emulated] = explain.Choice(self.index.catalogue, nodes, emulated)
        return known

    def arrive(self, task: Pending) -> None:
        """The packing policy learns what is asked for, placed or not."""
        request = self._known(task.needs).request
        for _ in range(task.tasks):
            self.index.arrive(request)

    def set_prices(self, prices: Prices) -> None:
        """What billing asks for chips now."""
        if prices != self.prices:
            self.prices = prices
            self.index.version += 1

    def set_energy(self, energy: Mapping[str, tuple[int, int]]) -> None:
        """What a watt-hour costs and emits at each site this hour (``power.rates``)."""
        if energy != self.energy:
            self.energy = energy
            self.index.version += 1

    def set_advice(self, advice: Lookup) -> None:
        """What the slow path says now: it orders the ways of a job and takes none away."""
        if advice != self.advice:
            self.index.version += 1
        self.advice = advice

    def _known(self, needs: Needs) -> _Ask:
        ask = self._by_id.get(id(needs))
        if ask is None or ask.version != self.index.version or ask.needs is not needs:
            ask = self._ask(needs)
        return ask

    def _ask(self, needs: Needs) -> _Ask:
        ask = self._asks.get(needs)
        if ask is None or ask.version != self.index.version:
            found = ways(self.index, needs, self.prices, self.energy, self.advice)
            kept = ask.refused if ask is not None else {}
            version = self.index.version
            ask = _Ask(needs, version, found, _request(needs, found), kept)
            self._asks[needs] = ask
        if ask.needs is needs:
            self._by_id[id(needs)] = ask
        return ask

    def _stamp(self, ask: _Ask) -> tuple[int, ...]:
        """Changes when something comes free that the ask could use."""
        pools = self.index.pools
        if not ask.ways:
            return (ask.version, pools[CPU].freed)
        return (ask.version, *(way.pool.freed for _, way in ask.ways))

    def _refused(self, task: Pending, ask: _Ask, now_ms: int) -> Waiting:
        known = ask.refused.get(task.tasks)
        stamp = self._stamp(ask)
        if known is not None and now_ms - known.made_ms < _FRESH_MS and now_ms:
            known.stamp = stamp
        else:
            reason, ruled_out = self._why(task, ask)
            known = ask.refused[task.tasks] = _Refusal(stamp, reason, ruled_out, now_ms)
        return Waiting(task, known.reason, known.ruled_out)

    def _why(self, task: Pending, ask: _Ask) -> tuple[Reason, dict[str, int]]:
        samples = [(self.index.first(x).view(), x.count) for x in self.index.living()]
        real = {chip for chip, count in self.index.real.items() if count > 0}
        found = explain.look(task.needs, samples, self.index.catalogue, real)
        if not found.holds:
            return explain.waiting(task.needs, found), explain.ruled_out(found)
        most = max((room(way, task.needs.span) for _, way in ask.ways), default=0)
        return explain.too_few(task.needs, task.tasks, most), explain.ruled_out(found)


def plan(snapshot: Snapshot, planner: Planner | None = None) -> tuple[Decision, ...]:
    """One decision for each waiting job.

    Args:
        planner: Kept from earlier plans: its index already is what ``snapshot.nodes`` says, and
            afterwards it holds what was placed.
    """
    if planner is None:
        planner = Planner(Index(snapshot.nodes, snapshot.catalogue))
    planner.set_prices(prices_of(snapshot.offers))
    waiting = sorted(snapshot.pending, key=_order)
    decide_one, now_ms = planner.decide, snapshot.now_ms
    return tuple([decide_one(task, now_ms) for task in waiting])


def decide(task: Pending, nodes: Iterable[Node], catalogue: Catalogue) -> Decision:
    """Where one job goes, given what is free now."""
    return Planner(Index(nodes, catalogue)).decide(task)


def _order(task: Pending) -> tuple[int, int]:
    return (-task.priority, task.number)


def _request(needs: Needs, found: tuple[tuple[str, Shelf], ...]) -> Request:
    """One member as the packing policy counts it."""
    count = needs.accelerator.count if needs.accelerator is not None else 0
    named = needs.accelerator is not None and bool(needs.accelerator.chips)
    chips = frozenset(chip for chip, _ in found) if named else frozenset()
    memory_mib = needs.memory_bytes // MIB
    return Request(needs.cpu_milli, memory_mib, count, WHOLE if count else 0, chips)


def _member(task: Pending, number: int, seat: Seat, chip: str, way: Shelf) -> Member:
    """A member as it is written; allocations that are alike are one object."""
    host, devices = seat
    key = devices or host.node.cpu_chip
    allocation = way.allocations.get(key)
    if allocation is None:
        shape = way.shape
        allocation = way.allocations[key] = Allocation(
            shape.cpu_milli,
            shape.memory_bytes,
            shape.disk_bytes,
            devices,
            chip if devices else host.node.cpu_chip,
            WHOLE * shape.devices if devices else shape.cpu_milli,
        )
    return Member(task.index + number, host.node.node_id, allocation)


def still_valid(
    placements: Iterable[Placed],
    nodes: dict[str, Node],
    pending: dict[str, int],
    trusted: Collection[str] = (),
) -> tuple[Placed, ...]:
    """Those placements that hold against rows just locked: the second, deciding check.

    Args:
        nodes: As they are now, by id.
        pending: Jobs that still wait, with the attempt of their next lease.
        trusted: Nodes that are as they were when the plan was made.
    """
    nodes = dict(nodes)
    valid: list[Placed] = []
    for placement in placements:
        if pending.get(placement.task.job) != placement.task.attempt:
            continue
        after = _seated(placement, nodes, trusted)
        if after is not None:
            nodes.update(after)
            valid.append(placement)
    return tuple(valid)


def _seated(
    placement: Placed, nodes: Mapping[str, Node], trusted: Collection[str]
) -> dict[str, Node] | None:
    """The nodes with all members on them; None where one has lost its place."""
    after: dict[str, Node] = {}
    for member in placement.members:
        if member.node_id in trusted:
            continue
        node = after.get(member.node_id) or nodes.get(member.node_id)
        if node is None or node.cordoned or not node.connected:
            return None
        if not has_room(node, member.allocation):
            return None
        after[member.node_id] = with_held(node, member.allocation)
    return after
