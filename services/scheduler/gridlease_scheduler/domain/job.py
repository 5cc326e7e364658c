"""A job: what it needs, how many tasks it has, and where it stands.

``PENDING -> RUNNING -> SUCCEEDED | FAILED``, back to PENDING when the platform failed it,
``PENDING -> CANCELLED`` at once and ``RUNNING -> STOPPING -> CANCELLED`` through its leases.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass, field

from .chips import AcceleratorNeed
from .lease import State


class JobState(enum.StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Will it never change again?"""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Purpose(enum.StrEnum):
    TRAINING = "TRAINING"
    INFERENCE = "INFERENCE"
    BATCH = "BATCH"


class Tier(enum.StrEnum):
    RESERVED = "RESERVED"
    ON_DEMAND = "ON_DEMAND"
    SPOT = "SPOT"


class Span(enum.StrEnum):
    """How near to each other the members of a gang must be."""

    ANY = "ANY"
    HOST = "HOST"
    RAIL = "RAIL"
    RACK = "RACK"
    SITE = "SITE"


class Tenancy(enum.StrEnum):
    """Who else may use what a task holds."""

    SHARED = "SHARED"
    EXCLUSIVE_DEVICE = "EXCLUSIVE_DEVICE"
    EXCLUSIVE_HOST = "EXCLUSIVE_HOST"


class NetworkClass(enum.StrEnum):
    """Whose packets go first."""

    STANDARD = "STANDARD"
    CRITICAL = "CRITICAL"
    BULK = "BULK"


@dataclass(frozen=True, slots=True)
class Software:
    """What the job's programs need of a node's driver: facts for ``compat``.

    ``toolkit``: "cuda", "rocm", "jetpack" or empty; ``version`` such as "12.4". ``targets``:
    the capabilities it carries machine code for ("sm_80", "gfx942"); empty = not said.
    ``carries_compat``: it brings NVIDIA's forward-compatibility package.
    """

    toolkit: str = ""
    version: str = ""
    targets: tuple[str, ...] = ()
    carries_compat: bool = False


@dataclass(frozen=True, slots=True)
class NetworkNeed:
    """What a task's traffic is promised."""

    guaranteed_mbps: int = 0
    network_class: NetworkClass = NetworkClass.STANDARD
    latency_us: int = 0  # 0 = the class's own


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something waits, was placed or ended: a stable code, and words and figures for it."""

    code: str = ""
    message: str = ""
    hint: str = ""
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """What decides where a task may run; two tasks with equal needs are answered alike."""

    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    accelerator: AcceleratorNeed | None = None
    runtime: str = ""
    purpose: Purpose = Purpose.BATCH
    tier: Tier = Tier.ON_DEMAND
    budget_nano: int = 0
    max_price_nano_per_hour: int = 0
    allow_emulated: bool = False
    # Other accelerators that would do as well; in this order if so said, else all alike.
    alternatives: tuple[AcceleratorNeed, ...] = ()
    alternatives_ordered: bool = False
    span: Span = Span.ANY
    latency_us: int = 0  # an answer's target time; 0 = none
    software: Software = Software()
    network: NetworkNeed = NetworkNeed()
    low_carbon: bool = False  # grams of CO2 count as much as money
    deferrable_ms: int = 0  # may wait so long for a cheap or clean hour
    tenancy: Tenancy = Tenancy.SHARED
    image: str = ""  # decides between nodes that are alike, and nothing else


@dataclass(frozen=True, slots=True)
class Extent:
    """How many tasks, for how long, and on what terms the platform may interrupt them.

    ``tasks``: members of the next attempt, placed all or none. ``longest_ms``: its max_duration.
    ``expected_ms``: a hint. ``min_runtime_ms``: its place is not taken before. ``requeue``: when
    another job takes its place it waits for a new one, else it has failed. ``follows_load``: a
    service whose number of tasks follows its requests.
    """

    tasks: int = 1
    tasks_min: int = 1
    tasks_max: int = 1
    longest_ms: int = 0
    expected_ms: int = 0
    min_runtime_ms: int = 0
    requeue: bool = True
    reservation: str = ""
    follows_load: bool = False

    @property
    def elastic(self) -> bool:
        """May it run on more or on fewer tasks?"""
        return self.tasks_min < self.tasks_max


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be accepted. ``spec`` is the caller's, defaults filled in, serialised.

    ``secrets``: their values, serialised; the spec has but their names.
    """

    name: str
    project: str
    tenant: str
    request_id: str
    spec: bytes
    spec_hash: bytes
    needs: Needs
    priority: int
    max_attempts: int
    notice_ms: int
    lost_after_ms: int
    traceparent: str = ""
    extent: Extent = Extent()
    secrets: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a task saved of its work: its own name for it, told to the next attempt."""

    id: str
    created_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Task:
    """One member of a job, with its newest lease's facts."""

    index: int
    attempt: int
    lease_id: str
    exit_code: int
    ran_ns: int
    reason: Reason
    node_id: str = ""
    hostname: str = ""
    allocation: Allocation | None = None
    lease_state: State | None = None
    rate_nano_per_hour: int = 0
    checkpoint: Checkpoint | None = None
    receipt: bytes = b""  # of what its node has wiped, as the node told it
    node_key: str = ""  # with which that node enrolled


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands. ``tasks``: of the attempt that counts, or of the first one to come."""

    name: str
    project: str
    tenant: str
    spec: bytes
    spec_hash: bytes
    needs: Needs
    priority: int
    number: int
    max_attempts: int
    notice_ms: int
    lost_after_ms: int
    traceparent: str
    state: JobState
    reason: Reason
    revision: int
    created_at: datetime.datetime
    placed_at: datetime.datetime | None
    ready_at: datetime.datetime | None
    ended_at: datetime.datetime | None
    tasks: tuple[Task, ...]
    extent: Extent = Extent()
    evicted: int = 0  # in all; these attempts do not count against max_attempts
    evictions: int = 0  # within the window of the rate limit
    last_evicted_at: datetime.datetime | None = None
    resume_from: str = ""  # the checkpoint that the attempt goes on from
    promised_until: datetime.datetime | None = None  # the end of its reservation
    secrets: bytes = field(default=b"", repr=False)  # gone once it has ended

    @property
    def attempt(self) -> int:
        """The newest attempt; all members share it. 0 = never placed."""
        return self.tasks[0].attempt


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one lease holds of one node."""

    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    device_ids: tuple[str, ...]
    chip: str
    quantity_milli: int
