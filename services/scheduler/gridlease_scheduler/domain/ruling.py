"""The whole decision of a pass with every policy in it: order, quota, price, windows, shadows,
evictions. ``plan`` alone places what fits; this says who may, who is first, and who gives way.

    for each job, first to be served first (``fair``):
      chips that quota, price or reservation forbid are out;
      what is held for others is out, unless it is sure to end before (``holds``);
      it is placed, unless power caps forbid it, a clean or cheap hour is near (``power``)
      or no path keeps what its network is promised (``paths``), or it waits;
      and if it could be placed but for others, then
        victims are told to end (``preempt``), or what was told already is awaited;
        it gets a shadow start (``backfill``), and what it needs is held for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .electricity import power
from .eviction import preempt
from .job import Needs, Reason
from .links import paths
from .links.network import Trouble
from .node import Node
from .order import fair, quota, reserve, spot
from .order.backfill import Shadow, passed, shadow
from .order.holds import Holds, for_head, for_reservations
from .placing.index import Index
from .placing.vacancy import Vacancies, emptied
from .plan import Decision, Member, Placed, Planner, Waiting
from .snapshot import Pending, Running, Snapshot, prices_of


@dataclass(frozen=True, slots=True)
class RulingRules:
    """``heads``: blocked jobs in a pass that get a shadow and may put others out. ``evictions``:
    jobs in a pass for which others are told to end."""

    heads: int = 4
    evictions: int = 2
    fair: fair.FairRules = fair.RULES
    evict: preempt.EvictionRules = preempt.RULES


RULES = RulingRules()
_ELSEWHERE = (  # these wait for nobody's devices: nobody is put out, and nothing held, for them
    power.CAPPED, "WAITS_FOR_CLEAN_HOUR", "WAITS_FOR_CHEAP_HOUR", *(x.value for x in Trouble),
)  # fmt: skip
_TRIES = 64  # places that are looked at for one job where power or network forbids the first
_SET_ASIDE = "\0aside"  # no chip bears it: tells the planner that nodes are missing for a while
_ASKED = 64  # jobs in a pass that are told exactly for whom they wait


@dataclass(frozen=True, slots=True)
class Ruling:
    """``decisions``: one for each waiting job, in the order served. ``evictions``: whom to tell to
    end. ``shadows``: by when the first blocked jobs will start."""

    decisions: tuple[Decision, ...]
    evictions: tuple[preempt.Eviction, ...] = ()
    shadows: tuple[Shadow, ...] = ()


def rule(
    snapshot: Snapshot,
    planner: Planner | None = None,
    rules: RulingRules = RULES,
    *,
    promised: Iterable[Shadow] = (),
    vacancies: Vacancies | None = None,
) -> Ruling:
    """Everything that one pass decides.

    Args:
        promised: Shadows of an earlier ruling that still stand: those jobs, if they are still
            blocked, keep their promises, and nobody else is told to end for them in this pass.
        vacancies: Kept from earlier passes, like ``planner``: nodes that did not change are not
            looked at again.
        planner: Kept from earlier passes: its index already is what ``snapshot.nodes`` says, and
            afterwards it holds what was placed.
    """
    if planner is None:
        planner = Planner(Index(snapshot.nodes, snapshot.catalogue))
    if snapshot.offers:
        planner.set_prices(prices_of(snapshot.offers))
    if snapshot.sites:
        planner.set_energy(power.rates(snapshot.sites, snapshot.now_ms))
    bench = _Bench(snapshot, planner, rules, promised, vacancies or Vacancies())
    queue = fair.order(
        snapshot.pending, snapshot.running, snapshot.shares, snapshot.catalogue, snapshot.now_ms,
        rules.fair, bench.possible,
    )  # fmt: skip
    try:
        decisions = tuple([bench.decide(task) for task in queue])
    finally:
        bench.holds.clear()
    return Ruling(decisions, tuple(bench.evictions), tuple(bench.shadows))


@dataclass(slots=True)
class _Veto:
    """Chips that a job may not have now, and why; ``full``: where it is quota."""

    version: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)
    full: dict[str, quota.QuotaFull] = field(default_factory=dict)


_NONE = _Veto()


class _Bench:
    """One pass at work."""

    def __init__(
        self,
        snapshot: Snapshot,
        planner: Planner,
        rules: RulingRules,
        promised: Iterable[Shadow],
        vacancies: Vacancies,
    ) -> None:
        self.snapshot, self.planner, self.rules = snapshot, planner, rules
        self.running: list[Running] = list(snapshot.running)
        self.book = quota.Book(snapshot.quotas, snapshot.catalogue, snapshot.running)
        self.holds = Holds(planner.index, snapshot.now_ms)
        self.evictions: list[preempt.Eviction] = []
        self.shadows: list[Shadow] = []
        self._vetoes: dict[tuple[str, int, int, str], _Veto] = {}
        self._promised = {x.task.job: x for x in promised}
        self._vacancies = vacancies
        self._possible: dict[tuple[int, int], bool] = {}
        self._crowds: Counter[int] | None = None
        self._heads = 0
        self._asked = 0
        self._nodes: Mapping[str, Node] | None = None
        self._power: power.Book | None = None
        self._paths: paths.Book | None = None
        if snapshot.links:
            self._paths = paths.Book(snapshot.links, self.running, self._node)
        self._barren: dict[tuple[Needs, int], Reason] = {}
        self._governed = bool(snapshot.quotas or snapshot.offers)
        self._sites = {site.name: site for site in snapshot.sites}
        if any(power.capped(site) for site in snapshot.sites):
            self._power = power.Book(self._sites, self._views(), snapshot.catalogue)
        if snapshot.reservations:
            for hold in for_reservations(
                snapshot.reservations, self._views().values(), self.running, snapshot.now_ms
            ):
                self.holds.add(hold)

    def decide(self, task: Pending) -> Decision:
        """One job."""
        veto = self._known_veto(task) if self._governed or task.reservation else _NONE
        bound = self.holds.sync(task) if self.holds else ()
        decision = self._allowed(task, veto)
        if isinstance(decision, Placed):
            self._count(decision)
            return decision
        if decision.reason.code in _ELSEWHERE:
            return decision
        if veto.reasons and self._all_barred(task, veto):
            return self._refused(task, veto)
        if bound and self._asked < _ASKED and self._would_start(task, veto):
            return Waiting(task, bound[0].reason, decision.ruled_out)
        if self._heads >= self.rules.heads or not self.possible(task):
            return decision
        self._heads += 1
        return self._blocked(task, decision, veto)

    def possible(self, task: Pending) -> bool:
        """Would it fit, by room and by quota, if nothing else ran? (However far apart.)"""
        key = (id(task.needs), task.tasks)
        known = self._possible.get(key)
        if known is None:
            if self._crowds is None:
                self._crowds = Counter(x.kind.serial for x in self.planner.index.hosts.values())
            crowds = self._crowds
            kinds = [x for x in self.planner.index.kinds.values() if crowds[x.serial]]
            most: dict[str, int] = {}
            for kind in kinds:
                for way, each in emptied(task.needs, kind.like, self.snapshot.catalogue):
                    most[way.chip] = most.get(way.chip, 0) + each * crowds[kind.serial]
            known = self._possible[key] = max(most.values(), default=0) >= task.tasks
        return known and any(
            self.book.ever(task.project, chip, each * task.tasks)
            for chip, each in self.planner.chips(task.needs)
        )

    def _known_veto(self, task: Pending) -> _Veto:
        """Found once for jobs alike, for as long as nothing more is held."""
        key = (task.project, id(task.needs), task.tasks, task.reservation)
        known = self._vetoes.get(key)
        if known is None or known.version != self.book.version or task.reservation:
            known = self._vetoes[key] = self._veto(task)
        return known

    def _allowed(self, task: Pending, veto: _Veto) -> Decision:
        """A place where it may draw its power, and now, and where links keep what it is promised.
        What is ruled out is set aside while it looks; within a pass there is only less of both, so
        an answer holds for all that ask alike."""
        kind = (task.needs, task.tasks)
        if kind in self._barren:
            return Waiting(task, self._barren[kind], {})
        barred, aside, index = dict(veto.reasons), list[Node](), self.planner.index
        tries = _TRIES
        try:
            while True:
                decision = self.planner.decide(task, self.snapshot.now_ms, barred)
                if not isinstance(decision, Placed):
                    break
                answer = self._unpowered(task, decision) or self._routed(decision)
                if isinstance(answer, Placed):
                    self._barren.pop(kind, None)
                    return answer
                self.planner.release(decision)
                tries -= 1
                if (scope := answer.scope) is None or not tries:
                    return Waiting(task, answer.reason, {})
                self._barren[kind] = barred[_SET_ASIDE] = answer.reason
                hosts = [x for x in index.hosts.values() if scope(x.node) and not x.node.cordoned]
                found = [x.view() for x in hosts]
                for node in found:
                    index.replace(replace(node, cordoned=True))
                aside += found
        finally:
            for node in aside:
                index.replace(node)
        if aside:
            return Waiting(task, self._barren[kind], {})
        return decision

    def _node(self, node_id: str) -> Node | None:
        """Where a node stands; what is free of it may be out of date."""
        host = self.planner.index.hosts.get(node_id)
        return None if host is None else host.node

    def _routed(self, placed: Placed) -> Placed | paths.Barrier:
        """With the path of each member."""
        return placed if self._paths is None else self._paths.route(placed)

    def _unpowered(self, task: Pending, placed: Placed) -> paths.Barrier | None:
        """Why power keeps it from starting there now."""
        site = self.planner.index.hosts[placed.node_id].node.site
        if task.needs.deferrable_ms:
            reason = power.deferred(task, self._sites.get(site), self.snapshot.now_ms)
            if reason is not None:
                return paths.Barrier(reason)
        reason = self._power.forbids(placed) if self._power is not None else None
        return None if reason is None else paths.Barrier(reason, power.scope(reason, site))

    def _veto(self, task: Pending) -> _Veto:
        """Quota, price and reservation have their word on each chip that it could have."""
        veto = _Veto(self.book.version)
        now = self.snapshot
        for chip, each in self.planner.chips(task.needs):
            milli = each * task.tasks
            if task.reservation:
                own = reserve.admits(task, milli, chip, now.reservations, self.running, now.now_ms)
                if isinstance(own, reserve.Held):
                    veto.reasons.setdefault(chip, own.reason)
            price = spot.bid(task, chip, milli, now.offers)
            if isinstance(price, spot.TooDear):
                veto.reasons.setdefault(chip, price.reason)
            room = self.book.admits(task.project, chip, milli)
            if isinstance(room, quota.QuotaFull) and chip not in veto.reasons:
                veto.reasons[chip] = room.reason
                veto.full[chip] = room
        return veto

    def _all_barred(self, task: Pending, veto: _Veto) -> bool:
        return all(chip in veto.reasons for chip, _ in self.planner.chips(task.needs))

    def _refused(self, task: Pending, veto: _Veto) -> Waiting:
        """No chip is allowed. Quota that others borrowed is taken back, if it is its own."""
        for chip, full in veto.full.items():
            if full.owed and len(self.evictions) < self.rules.evictions:
                answer = preempt.reclaim(
                    task, full, chip, self.running, self.snapshot.catalogue, self.book,
                    self.rules.evict,
                )  # fmt: skip
                if isinstance(answer, preempt.Eviction):
                    self._evict(answer)
                    return Waiting(task, answer.reason, {})
        chip = next(x for x, _ in self.planner.chips(task.needs) if x in veto.reasons)
        return Waiting(task, veto.reasons[chip], {})

    def _would_start(self, task: Pending, veto: _Veto) -> bool:
        """Would it be placed if nothing were held for others?"""
        self._asked += 1
        self.holds.lift()
        without = self.planner.decide(task, self.snapshot.now_ms, veto.reasons)
        if isinstance(without, Placed):
            self.planner.release(without)
        return isinstance(without, Placed)

    def _blocked(self, task: Pending, decision: Waiting, veto: _Veto) -> Waiting:
        """It could run but for others: it puts them out, or waits for a known hour."""
        if (earlier := self._promised.get(task.job)) is not None:
            return self._promise(task, decision, decision.reason, earlier)
        nodes, now, taken = self._views(), self.snapshot, self.holds.nodes
        reason = decision.reason
        if len(self.evictions) < self.rules.evictions:
            answer = preempt.choose(
                task, nodes.values(), self.running, now.catalogue, self.book,
                rules=self.rules.evict, taken=taken, barred=veto.reasons,
                vacancies=self._vacancies,
            )  # fmt: skip
            match answer:
                case preempt.Eviction():
                    reason = answer.reason
                    self._evict(answer)
                case preempt.Coming(places=places):
                    ending = {x.node_id for x in self.running if x.closing}
                    reason = preempt.COMING if ending & {x for x, _ in places} else reason
                case preempt.Spared():
                    pass
        promise = shadow(
            task, nodes.values(), self.running, now.catalogue, now.now_ms, taken, veto.reasons,
            self._vacancies,
        )  # fmt: skip
        if not reason.code:
            reason = next(iter(veto.reasons.values()))
        if promise is None:
            return Waiting(task, reason, decision.ruled_out)
        return self._promise(task, decision, reason, promise)

    def _promise(
        self, task: Pending, decision: Waiting, reason: Reason, promise: Shadow
    ) -> Waiting:
        """From here on what the job will need is held for it."""
        self.shadows.append(promise)
        self.holds.lift()
        hosts = self.planner.index.hosts
        nodes = {name: hosts[name].view() for name, _ in promise.places if name in hosts}
        self.holds.add(for_head(promise, nodes, _kept(promise)))
        evidence = reason.evidence | {"earliest_start_ms": str(promise.start_ms)}
        return Waiting(task, replace(reason, evidence=evidence), decision.ruled_out)

    def _evict(self, eviction: preempt.Eviction) -> None:
        """From here on in this pass they count as told."""
        self.evictions.append(eviction)
        gone = {x.job for x in eviction.victims}
        self.running = [replace(x, closing=True) if x.job in gone else x for x in self.running]

    def _count(self, placed: Placed) -> None:
        """What was just given away counts for those who come after."""
        if self._power is not None:
            self._power.count(placed)
        if self._paths is not None:
            self._paths.count(placed)
        self._nodes = None
        task, milli = placed.task, 0
        if self.shadows:
            self._pass_by(placed)
        if not (self.book.rules or task.reservation):
            return
        for member in placed.members:
            holding = member.allocation
            milli += holding.quantity_milli
            self.book.hold(task.project, holding.chip, holding.quantity_milli)
            if task.reservation:
                self.running.append(_lease(task, member))
        if task.reservation:
            self.holds.used(task, milli)

    def _pass_by(self, placed: Placed) -> None:
        """What a promise leaves over is less by what was placed there for long."""
        longest_ms, now_ms = placed.task.longest_ms, self.snapshot.now_ms
        for at, promise in enumerate(self.shadows):
            for member in placed.members:
                promise = passed(  # noqa: PLW2901 - member by member
                    promise, member.node_id, member.allocation, longest_ms, now_ms
                )
            self.shadows[at] = promise

    def _views(self) -> Mapping[str, Node]:
        """Nodes as the leases and the placements of this pass leave them, without any holds."""
        if self._nodes is None:
            self.holds.lift()
            self._nodes = {x.node_id: x for x in self.planner.index.views()}
        return self._nodes


def _kept(promise: Shadow) -> Reason:
    """Why others wait although there is room. Whose promise it is, is nobody's business."""
    return Reason(
        "KEPT_FOR_ANOTHER",
        "What is free is kept for a job that comes before it.",
        "It is placed once that one runs; say how long it runs (max_duration) to start before.",
        {"until_ms": str(promise.start_ms)},
    )


def _lease(task: Pending, member: Member) -> Running:
    """The lease that a placement will be."""
    return Running(
        f"{task.job}/{member.index}", task.job, member.index, task.tenant, task.project,
        member.node_id, task.priority, task.needs.tier, member.allocation,
        longest_ms=task.longest_ms, reservation=task.reservation,
    )  # fmt: skip
