"""What the use cases ask of the outside: a store, billing, credentials, time, ids, a wake-up.

A ``Store`` opens transactions; a ``Tx`` groups what may be read and written in one. Lock order is
the same everywhere: the leader's epoch, then nodes by id, then jobs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .domain.ends import Outcome, TaskEnd
from .domain.job import Allocation, Job, JobState, NewJob, Reason, Task
from .domain.lease import Lease
from .domain.node import Node
from .domain.order.spot import Utilization
from .domain.plan import Placed
from .domain.preload import Recent
from .domain.slow.advice import Problem, Solution
from .domain.snapshot import Offered
from .operators import Capacity, Planning
from .rows import (
    DeviceRow,
    Event,
    EventQuery,
    FleetChanges,
    Granted,
    HeldLease,
    Instant,
    InventoryReport,
    NewLease,
    NodeDetail,
    NodeRow,
    QueueChanges,
    Silence,
    Standing,
    TokenRow,
)

T = TypeVar("T")


class Jobs(Protocol):
    """Jobs and their tasks."""

    async def accept(self, jobs: Sequence[NewJob]) -> dict[str, Job]:
        """Write jobs; those of them, by name, that are new: neither their request id is known in
        their project, nor is their name taken."""
        ...

    async def by_request(self, project: str, request_id: str) -> Job | None: ...

    async def get(self, name: str, *, lock: bool = False) -> Job | None: ...

    async def page(
        self, project: str, *, limit: int, before: int | None, active_only: bool
    ) -> list[Job]:
        """Newest first."""
        ...

    async def queue(self, limit: int) -> list[Standing]:
        """Those that wait: the highest priority first, then the oldest."""
        ...

    async def queue_changes(self, since: int) -> QueueChanges:
        """Of the jobs that changed in a transaction from this one on."""
        ...

    async def lock_pending(self, names: Sequence[str]) -> dict[str, int]:
        """Lock those that still wait; the attempt of their next lease by name."""
        ...

    async def explain(self, reasons: Sequence[tuple[str, Reason]]) -> None:
        """Write why jobs wait, where they still do."""
        ...

    async def place(self, granted: Sequence[Granted]) -> None:
        """PENDING to RUNNING, with the new leases on the tasks."""
        ...

    async def recent(self, limit: int) -> list[Recent]:
        """What the last jobs ran on."""
        ...

    async def ready(self, name: str) -> bool:
        """One of its tasks was first heard to run; whether now all of them have been."""
        ...

    async def some(self, names: Sequence[str]) -> dict[str, Job]:
        """Those that exist, by name."""
        ...

    async def told(
        self, name: str, index: int, checkpoint: str, progress: dict[str, Any] | None
    ) -> None:
        """What a running task tells of itself; an empty checkpoint says nothing."""
        ...

    async def evicted(
        self, name: str, tasks: int, window_ms: int, *, asleep: bool, counted: bool
    ) -> None:
        """Its place is taken. ``tasks``: of its next attempt. ``asleep``: it is not placed again
        before it is woken. ``counted``: within the window of the rate limit too."""
        ...

    async def want(self, name: str, tasks: int) -> None:
        """How many tasks it is to have where it still waits."""
        ...

    async def wake(self, name: str, reason: Reason) -> bool:
        """Let it be placed again; False where it is not asleep."""
        ...

    async def move(self, name: str, state: JobState, reason: Reason) -> None:
        """To STOPPING, from PENDING to its end, or nowhere but to another reason."""
        ...

    async def end_task(self, name: str, index: int, end: TaskEnd) -> None:
        """How one member ended."""
        ...

    async def finish(self, name: str, attempt: int, end: Outcome) -> None:
        """What the close of an attempt's last lease leaves the job as."""
        ...


class Leases(Protocol):
    """Leases and the devices that they hold."""

    async def insert(self, granted: Sequence[Granted], epoch: int) -> None: ...

    async def unclosed_of_node(self, node_id: str) -> list[HeldLease]: ...

    async def unclosed_of_job(self, job: str) -> list[HeldLease]:
        """By the index of their task."""
        ...

    async def of_attempt(self, job: str, attempt: int) -> list[HeldLease]:
        """All of them, closed ones too, by the index of their task."""
        ...

    async def split(self) -> list[str]:
        """Jobs of which some leases are CLOSING while others are ACTIVE."""
        ...

    async def get(self, lease_id: str) -> HeldLease | None: ...

    async def closing(self) -> list[HeldLease]: ...

    async def on_silent_nodes(self) -> list[Lease]:
        """ACTIVE ones whose node was not heard for as long as they bear."""
        ...

    async def write(
        self, lease: Lease, *, spool_id: str | None, ready: bool, exit_facts: dict[str, Any] | None
    ) -> None:
        """Phase, exit, gone, and the move to CLOSING."""
        ...

    async def wiped(self, node_id: str, records: Mapping[str, bytes]) -> list[tuple[str, str]]:
        """Receipts of this node's leases; the leases and jobs that had none before."""
        ...

    async def stop(self, lease: Lease, reason: Reason) -> None:
        """The move to CLOSING at the platform's or the tenant's word; the task hears why."""
        ...

    async def close(self, lease: Lease) -> None:
        """CLOSING to CLOSED; its devices are free."""
        ...


class Nodes(Protocol):
    """Nodes, their devices, their tokens."""

    async def lock(self, node_ids: Iterable[str]) -> None:
        """Lock these rows, in the order of their ids."""
        ...

    async def views(self, node_ids: Iterable[str] | None = None) -> list[Node]:
        """As the planner sees them; None = all that have told what they have."""
        ...

    async def detail(self, node_id: str) -> NodeDetail | None: ...

    async def chips(self) -> dict[str, frozenset[str]]:
        """The chips of each node's accelerators."""
        ...

    async def page(self, *, limit: int, after: str) -> list[NodeDetail]: ...

    async def heard(self, node_id: str, spool_id: str, boot_id: str) -> NodeRow | None:
        """Note that it was heard, and lock it; the row as it was before, or None."""
        ...

    async def devices_seen(self, node_id: str, clean: dict[str, bool]) -> None:
        """Note which devices are clean by the node's word."""
        ...

    async def now(self) -> Instant:
        """Of this transaction's snapshot."""
        ...

    async def fleet(self) -> FleetChanges:
        """All nodes that have told what they have."""
        ...

    async def fleet_changes(self, since: int, known: dict[str, int]) -> FleetChanges:
        """Those changed in a transaction from this one on, but for changes already known."""
        ...

    async def hold(self, node_ids: Iterable[str]) -> dict[str, int]:
        """Lock these rows, in the order of their ids; the transaction of each one's last change."""
        ...

    async def bump(self, node_ids: Iterable[str]) -> dict[str, int]:
        """Their desired sets changed: one generation up, and hints in the outbox; the transaction
        of this change by node."""
        ...

    async def report(self, node_id: str, inventory: InventoryReport) -> str | None:
        """Replace what is known of it; its site, or None where it is unknown."""
        ...

    async def silences(self, least_ms: int, node_id: str = "") -> list[Silence]:
        """Of nodes that were not heard for so long; of one alone where it is named."""
        ...

    async def disconnect(self, node_id: str) -> None: ...

    async def cordon(self, node_id: str, *, cordoned: bool, note: str, for_ms: int) -> None: ...

    async def cordons_over(self) -> list[str]:
        """Nodes whose cordon has an end that has passed."""
        ...

    async def drain(self, node_id: str) -> None:
        """It is cordoned, and what runs there is being moved away."""
        ...

    async def stand(self, node_id: str, rack: str, rail: str) -> None:
        """Where an operator says that it stands; empty = its own word counts."""
        ...

    async def revoke(self, node_id: str) -> None:
        """It is not heard any more, until it joins by a new token."""
        ...

    async def add_token(self, hash_: bytes, node_id: str, site: str, ttl_ms: int) -> None: ...

    async def token(self, hash_: bytes) -> TokenRow | None:
        """The token's row, locked."""
        ...

    async def enrol(self, hash_: bytes, token: TokenRow, public_key: str) -> None:
        """Use the token: the node exists from now on, with this key."""
        ...


class Events(Protocol):
    """The feed of what happened."""

    async def tell(self, event: Event) -> None:
        """Write the event; the mesh's event feed copies it once it is committed."""
        ...

    async def tell_all(self, events: Sequence[Event], traces: Sequence[str] = ()) -> None:
        """The same for many; ``traces``: the trace that each happened in, if not in this one."""
        ...

    async def after(self, query: EventQuery) -> list[Event]:
        """In order, none left out: what an open transaction may still precede is not shown yet."""
        ...


class Tx(Protocol):
    """One open transaction."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def nodes(self) -> Nodes: ...
    @property
    def events(self) -> Events: ...
    @property
    def planning(self) -> Planning: ...
    @property
    def capacity(self) -> Capacity: ...


class Store(Protocol):
    """PostgreSQL."""

    def reading(self) -> AbstractAsyncContextManager[Tx]:
        """One snapshot, nothing written."""
        ...

    def writing(self, epoch: int | None = None) -> AbstractAsyncContextManager[Tx]:
        """A transaction; with an epoch only while that is still the leader's.

        Raises:
            Conflict: LEADER_DEPOSED, before anything is read.
        """
        ...


class Aside(Protocol):
    """PostgreSQL for large readings, beside the event loop that everybody else waits for."""

    async def read(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        """What ``work`` finds in one snapshot; it runs in another thread."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """The leases of one placement, which billing is asked to authorise: all or none."""

    lease_ids: tuple[str, ...]
    placed: Placed


@dataclass(frozen=True, slots=True)
class Authorized:
    """``rates``: nano-units an hour, by member."""

    rates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str
    hint: str


class Billing(Protocol):
    """The two calls of the lease protocol that the scheduler makes.

    Both raise Unreachable where no answer came: it may or may not have happened.
    """

    async def authorize(self, orders: Sequence[Order]) -> list[Authorized | Refused]:
        """One answer for each; none suffers for another."""
        ...

    async def close(
        self, leases: Sequence[Lease], cut_short_ms: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """How long each may still run at most, in milliseconds from this answer.

        ``cut_short_ms``: how much of their announced warning was not given, by lease; a tenant is
        paid for it once.
        """
        ...


class Market(Protocol):
    """Who moves the prices of spot capacity."""

    async def tell(self, end_ms: int, uses: Sequence[Utilization]) -> int:
        """How full chips were in the window that ended then; how many prices that moved. Telling
        it again moves none. Raises Unreachable where no answer came."""
        ...


class Optimiser(Protocol):
    """Who solves the slow path's program."""

    async def solve(self, problem: Problem) -> Solution:
        """Raises Unreachable where no answer came in time."""
        ...


@dataclass(frozen=True, slots=True)
class PriceList:
    """What chips cost by the hour now; an empty currency and no offers = not known."""

    currency: str
    offers: tuple[Offered, ...]


class Prices(Protocol):
    """Billing's prices, for plans and explanations: never for what is charged."""

    async def __call__(self) -> PriceList:
        """Raises:
        Unreachable: billing gives no answer.
        """
        ...


class Credentials(Protocol):
    """Who signs what lets a node onto the mesh."""

    def mint(self, node_id: str, public_key: str) -> str:
        """A token for the node's own key; empty where the broker has its own accounts."""
        ...

    @property
    def ttl_s(self) -> int:
        """How long a token is good for, in seconds; 0 where none is made."""
        ...

    def revoke(self, public_key: str) -> None:
        """Have the broker refuse the tokens made for this key until now; idempotent."""
        ...


class Wakeups(Protocol):
    """Hints that something was committed; they may be lost, so every wait has an end."""

    def watch(self, topic: str) -> AbstractAsyncContextManager[Ticket]:
        """``work``, ``events`` or ``job:<name>``."""
        ...


class Ticket(Protocol):
    async def wait(self, timeout_s: float) -> bool:
        """Until woken since the last wait, at most so long; whether it was."""
        ...


class MonotonicClock(Protocol):
    """Time that only this process speaks of."""

    def now_ms(self) -> int: ...


__all__ = [
    "Allocation", "Authorized", "Billing", "Credentials", "DeviceRow", "Event", "EventQuery",
    "Events", "FleetChanges", "Granted", "HeldLease", "Instant", "InventoryReport", "Jobs",
    "Leases", "Market", "MonotonicClock", "NewLease", "NodeDetail", "NodeRow", "Nodes", "Optimiser",
    "Order", "QueueChanges", "Refused", "Silence", "Standing", "Store", "Task", "Ticket",
    "TokenRow", "Tx", "Wakeups",
]  # fmt: skip
