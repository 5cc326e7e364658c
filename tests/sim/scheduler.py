"""The scheduler's shell in the simulator: a database, and leaders of which one is the newest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gridlease_billing.domain import grant
from gridlease_scheduler.domain import ends
from gridlease_scheduler.domain import lease as core
from gridlease_scheduler.domain.job import JobState, Reason
from gridlease_scheduler.domain.lease import Cause, DesiredSet, Lease, Sighting, State

from tests.sim.oracle import Oracle
from tests.sim.rules import Rules
from tests.sim.world import NOTICE_MS, RPC_MS, SCHEDULER, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sim.cluster import Cluster

PENDING, PLACED, DONE, CANCELLED, FAILED = "PENDING", "PLACED", "DONE", "CANCELLED", "FAILED"
_PATIENCE = ends.Patience(max_attempts=1_000)
_STATES = {
    JobState.PENDING: PENDING,
    JobState.SUCCEEDED: DONE,
    JobState.FAILED: FAILED,
    JobState.CANCELLED: CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Task:
    task_id: str
    gang: str  # of one, where it stands alone
    state: str = PENDING
    attempt: int = 0
    cancelled: bool = False


@dataclass
class Database:
    """PostgreSQL with the scheduler's tables."""

    epoch: int = 0
    leases: dict[str, Lease] = field(default_factory=dict)
    stops: dict[str, Reason] = field(default_factory=dict)  # why leases were told to end
    tasks: dict[str, Task] = field(default_factory=dict)
    generation: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    leases: tuple[Lease, ...]
    asks: tuple[grant.Ask, ...]
    asked_ms: int


class Leader:
    """One process that believes it leads. It reads from memory and writes through its epoch."""

    def __init__(
        self, world: World, rules: Rules, oracle: Oracle, database: Database, cluster: Cluster
    ) -> None:
        self.world, self.rules, self.oracle = world, rules, oracle
        self.database, self.cluster = database, cluster
        database.epoch += 1
        self.epoch = database.epoch
        self.alive = True
        self.drift_ppm = world.drift()
        self.terms = rules.terms or SCHEDULER
        self.leases = {
            k: replace(x, closable_at_ms=None)
            for k, x in database.leases.items()
            if x.state is not State.CLOSED
        }
        self.generation = dict(database.generation)
        self.seen_ms = dict.fromkeys(database.generation, self.clock())
        self.dirty: dict[str, frozenset[str]] = {}
        self.placing: dict[str, Placement] = {}
        self.closing: dict[str, int] = {}
        world.say(f"S{self.epoch}  leads")

    def clock(self) -> int:
        """This process's monotonic clock, ms."""
        return self.world.now * (1_000_000 + self.drift_ppm) // 1_000_000

    # one transaction

    def write(
        self, *leases: Lease, tasks: tuple[Task, ...] = (), stop: Reason | None = None
    ) -> bool:
        """All or nothing, if the epoch is still ours; otherwise this leader steps down."""
        if not self.alive:
            return False
        if not self.rules.may_write(self):
            self.alive = False
            return False
        database = self.database
        for lease in leases:
            old = database.leases.get(lease.lease_id)
            if old is None or old.state is not lease.state:
                node = lease.node_id
                database.generation[node] = database.generation.get(node, 0) + 1
                self.generation[node] = database.generation[node]
                self.cluster.hint(node)
                self.world.say(f"S{self.epoch}  {lease.lease_id} {lease.state} {lease.cause}")
            if stop is not None and old is not None and old.state is State.ACTIVE:
                database.stops[lease.lease_id] = stop
            database.leases[lease.lease_id] = replace(lease, closable_at_ms=None)
            self.leases[lease.lease_id] = lease
            self.oracle.wrote(self.cluster, old, lease)
        for task in tasks:
            database.tasks[task.task_id] = task
        return True

    # placing

    def cycle(self) -> None:
        """One turn: close what may be closed, find what is lost, place what waits."""
        if not self.alive:
            return
        now = self.clock()
        for lease in list(self.leases.values()):
            if lease.state is State.CLOSED:
                del self.leases[lease.lease_id]
            elif core.lost(lease, self.seen_ms.get(lease.node_id, 0), now):
                self.end(lease, Cause.NODE_LOST, 0)
        self.advance()
        gangs: dict[str, list[Task]] = {}
        for task in self.database.tasks.values():
            gangs.setdefault(task.gang, []).append(task)
        for gang, tasks in gangs.items():
            waiting = [task for task in tasks if task.state == PENDING]
            if waiting and not any(task.state == PLACED for task in tasks):
                self._place(gang, waiting, now)

    def _place(self, gang: str, tasks: list[Task], now: int) -> None:
        placement = self.placing.get(gang)
        if placement is None:
            leases = self._choose(tasks, now)
            if leases is None:
                return
            # A gang's name is that of one placement: were it the job's, the renewals of a later
            # placement would keep the holds of an earlier one, never used, alive for ever.
            name = f"{gang}/{leases[0].lease_id}" if len(leases) > 1 else ""
            asks = tuple(
                grant.Ask(
                    x.lease_id,
                    job=gang,
                    gang=name,
                    node=x.node_id,
                    quantity_milli=1_000,
                    attempt=x.attempt,
                    notice_ms=NOTICE_MS,
                )
                for x in leases
            )
            placement = Placement(leases, asks, now - RPC_MS)
        if now - placement.asked_ms >= RPC_MS:
            self.placing[gang] = replace(placement, asked_ms=now)
            self._send_authorize(gang, placement)

    def _send_authorize(self, gang: str, placement: Placement) -> None:
        ids = tuple(x.lease_id for x in placement.leases)

        def reply(answers: tuple[grant.Granted | grant.Refused, ...]) -> None:
            self.world.send("Authorize<", "B", "S", self.on_authorized, gang, ids, answers)

        self.world.send(
            "Authorize>", "S", "B", self.cluster.billing.on_authorize, placement.asks, reply
        )

    def _choose(self, tasks: list[Task], now: int) -> tuple[Lease, ...] | None:
        leases = []
        taken: set[str] = set()
        for task in tasks:
            free = [
                (node.name, device)
                for node in self.cluster.nodes.values()
                for device in node.devices
                if device not in taken
                and core.device_free(
                    device,
                    node.name,
                    self.leases.values(),
                    connected=core.connected(
                        self.seen_ms.get(node.name, -(10**9)), now, self.terms
                    ),
                    dirty=device in self.dirty.get(node.name, frozenset((device,))),
                )
            ]
            if not free:
                return None
            name, device = self.world.rng.choice(free)
            taken.add(device)
            self.cluster.lease_ids += 1
            leases.append(
                Lease(
                    f"L{self.cluster.lease_ids}",
                    task.task_id,
                    task.attempt + 1,
                    name,
                    (device,),
                    lost_after_ms=self.cluster.lost_after_ms,
                )
            )
        return tuple(leases)

    def on_authorized(
        self, gang: str, ids: tuple[str, ...], answers: tuple[grant.Granted | grant.Refused, ...]
    ) -> None:
        placement = self.placing.get(gang)
        if not self.alive or placement is None:
            return
        if tuple(x.lease_id for x in placement.leases) != ids:
            return
        del self.placing[gang]
        refused = [a for a in answers if isinstance(a, grant.Refused)]
        tasks = [self.database.tasks[x.task_id] for x in placement.leases]
        if refused:
            if refused[0].reason != grant.Reason.LEASE_FENCED:
                self.write(
                    tasks=tuple(replace(t, state=FAILED) for t in tasks if t.state == PENDING)
                )
            return
        if not self.rules.may_write(self):
            self.alive = False
            return
        if self.still_free(placement, tasks):
            self.write(
                *placement.leases,
                tasks=tuple(replace(t, state=PLACED, attempt=t.attempt + 1) for t in tasks),
            )

    def still_free(self, placement: Placement, tasks: list[Task]) -> bool:
        """In the transaction: tasks pending as they were, no unclosed lease on task or device."""
        if not self.rules.checks_inside(self):
            return True
        unclosed = [x for x in self.database.leases.values() if x.state is not State.CLOSED]
        devices = {device for x in unclosed for device in x.devices}
        return all(
            task.state == PENDING and lease.attempt == task.attempt + 1
            for task, lease in zip(tasks, placement.leases, strict=True)
        ) and not any(device in devices for x in placement.leases for device in x.devices)

    # ending

    def end(self, lease: Lease, cause: Cause, notice_ms: int) -> None:
        """ACTIVE -> CLOSING: one lease that is lost, or all of a job that somebody ends."""
        task = self.database.tasks[lease.task_id]
        told = [lease]
        if cause is not Cause.NODE_LOST:
            told = [x for x in self.members(task.gang, lease.attempt) if x.state is State.ACTIVE]
        reason = Reason(str(cause), "The simulator's word.")
        if self.write(*(core.to_closing(x, cause, notice_ms) for x in told), stop=reason):
            self.advance()

    def members(self, gang: str, attempt: int) -> list[Lease]:
        """All leases of a job's attempt, as one transaction reads them."""
        mine = [x for x in self.database.leases.values() if x.attempt == attempt]
        return [x for x in mine if self.database.tasks[x.task_id].gang == gang]

    def member(self, lease: Lease) -> ends.Member:
        """A lease as the rules for ends see it."""
        index = int(lease.task_id.rpartition(".")[2])
        return ends.Member(index, lease, self.database.stops.get(lease.lease_id, Reason()))

    def follow(self) -> None:
        """Who still runs of a gang that has lost a member is told to end."""
        closing = [x for x in self.leases.values() if x.state is State.CLOSING]
        for gang, attempt in dict.fromkeys(
            (self.database.tasks[x.task_id].gang, x.attempt) for x in closing
        ):
            members = self.members(gang, attempt)
            over = [self.member(x) for x in members if x.state is not State.ACTIVE]
            told = ends.follow(over)
            active = [x for x in members if x.state is State.ACTIVE]
            if told is not None and active:
                cause, reason = told
                self.write(*(core.to_closing(x, cause, NOTICE_MS) for x in active), stop=reason)

    def advance(self) -> None:
        """CLOSING leases: ask Close until it has answered, then close what may be closed."""
        now = self.clock()
        self.follow()
        for lease in list(self.leases.values()):
            if lease.state is not State.CLOSING:
                continue
            if core.may_close(lease, now):
                self._close(lease, now)
            elif lease.closable_at_ms is None:
                asked = self.closing.get(lease.lease_id)
                if asked is None or now - asked >= RPC_MS:
                    if asked is not None:
                        self.leases[lease.lease_id] = self.rules.close_timed_out(self, lease)
                        if self.leases[lease.lease_id] is not lease:
                            continue
                    self.closing[lease.lease_id] = now
                    self._send_close(lease)

    def _send_close(self, lease: Lease) -> None:
        def reply(lease_id: str, wait_ms: int) -> None:
            self.world.send("Close<", "B", "S", self.on_closed, lease_id, wait_ms)

        assert lease.cause is not None
        self.world.send(
            "Close>",
            "S",
            "B",
            self.cluster.billing.on_close,
            lease.lease_id,
            lease.notice_ms,
            grant.Cause(lease.cause),
            reply,
        )

    def on_closed(self, lease_id: str, wait_ms: int) -> None:
        lease = self.leases.get(lease_id)
        if not self.alive or lease is None:
            return
        lease = core.close_answered(lease, wait_ms, self.clock(), self.terms)
        self.leases[lease_id] = lease
        self.world.say(f"S{self.epoch}  {lease_id} closable at {lease.closable_at_ms}")
        if lease.closable_at_ms is not None:
            left_ms = max(0, lease.closable_at_ms - self.clock())
            self.world.at(left_ms * 1_000_000 // (1_000_000 + self.drift_ppm) + 1, self.advance)
        self.advance()

    def _close(self, lease: Lease, now: int) -> None:
        """CLOSED; the last of an attempt decides what becomes of the whole job."""
        gang = self.database.tasks[lease.task_id].gang
        members = self.members(gang, lease.attempt)
        others = [x for x in members if x.lease_id != lease.lease_id]
        running = any(x.state is State.ACTIVE for x in others)
        stored = self.database.leases[lease.lease_id]
        if running and ends.follow([self.member(stored)]) is not None:
            return  # they are told first
        tasks: tuple[Task, ...] = ()
        if all(x.state is State.CLOSED for x in others):
            mine = [x for x in self.database.tasks.values() if x.gang == gang]
            state = JobState.STOPPING if any(x.cancelled for x in mine) else JobState.RUNNING
            found = ends.ended(state, [self.member(x) for x in (*others, stored)], _PATIENCE)
            tasks = tuple(replace(x, state=_STATES[found.state]) for x in mine)
        self.write(core.closed(lease, now), tasks=tasks)

    # SyncNode

    def on_sync(
        self,
        node: str,
        sightings: tuple[Sighting, ...],
        dirty: frozenset[str],
        reply: Callable[[DesiredSet], None],
    ) -> None:
        if not self.alive:
            return
        self.seen_ms[node] = self.clock()
        self.dirty[node] = dirty
        observed = self.rules.observe(list(self.leases.values()), node, sightings)
        if observed.changed and not self.write(*observed.changed):
            return
        self.advance()
        leases = [x for x in self.leases.values() if x.node_id == node]
        reply(core.desired_set(leases, node, self.generation.get(node, 0)))
