"""A job: what it needs, where it stands, and what the end of a lease means for it.

``PENDING -> RUNNING -> SUCCEEDED | FAILED``, back to PENDING when its node failed it,
``PENDING -> CANCELLED`` at once and ``RUNNING -> STOPPING -> CANCELLED`` through the lease.
"""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass, field

from .chips import AcceleratorNeed
from .lease import Cause, Exit, Lease


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


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be accepted. ``spec`` is the caller's, defaults filled in, serialised."""

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


@dataclass(frozen=True, slots=True)
class Task:
    """The one member of a job, with its newest lease's facts."""

    index: int
    attempt: int
    lease_id: str
    exit_code: int
    ran_ns: int
    reason: Reason
    node_id: str = ""
    allocation: Allocation | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands."""

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
    task: Task


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one lease holds of one node."""

    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    device_ids: tuple[str, ...]
    chip: str
    quantity_milli: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where a job stands once its lease is CLOSED. ``ran_ns`` is of this lease."""

    state: JobState
    reason: Reason
    exit_code: int = 0
    ran_ns: int = 0


# Ends that are the platform's doing and not the task's: it is placed again. A task that exits by
# itself, with whatever code, is never run a second time.
_PLACED_AGAIN = {
    "NODE_LOST": "its node fell silent",
    "START_LOST": "its node lost it while it was starting",
    "NODE_REBOOT": "its node was restarted",
    "NEVER_STARTED": "it could not be started in time",
    "DEADLINE": "its grant ended unrenewed",
}

_WORDS = {
    "EXITED": "The task exited with code {code}.",
    "OOM_KILLED": "The task used more memory than it asked for and was killed.",
    "DISK_QUOTA": "The task wrote more to its disk than it asked for and was stopped.",
    "MAX_DURATION": "The task reached its max_duration and was stopped.",
    "BUDGET_EXHAUSTED": "The budget or the credit was used up, so the task was stopped.",
    "START_FAILED": "The task could not be started.",
    "STOPPED": "The task was stopped.",
}
_HINTS = {
    "EXITED": "Read its logs.",
    "OOM_KILLED": "Ask for more memory.",
    "DISK_QUOTA": "Ask for more disk.",
    "MAX_DURATION": "Raise max_duration.",
    "BUDGET_EXHAUSTED": "Raise the budget or pay in credit, and submit it again.",
    "START_FAILED": "Read its logs; check its runtime and its files.",
}


def placed_again(cause: Cause | None, end: Exit | None) -> str:
    """The reason code by which a task whose lease ended so is placed again; empty = it is not."""
    if end is not None and end.reason in _PLACED_AGAIN:
        return end.reason
    if end is not None and end.reason != "STOPPED":
        return ""  # it came to its own end, also on a node that was given up meanwhile
    return str(cause) if cause in (Cause.NODE_LOST, Cause.DRAINED, Cause.PREEMPTED) else ""


def outcome(state: JobState, lease: Lease, max_attempts: int, exit_message: str = "") -> Outcome:
    """What a closed lease leaves its job as."""
    end = lease.exit
    code, ran_ns = (end.code, end.ran_ns) if end is not None else (0, 0)
    evidence = _evidence(lease)
    again = placed_again(lease.cause, end)
    if state is JobState.STOPPING or lease.cause is Cause.STOPPED:
        reason = Reason("CANCELLED", "It was stopped by its tenant.", "", evidence)
        return Outcome(JobState.CANCELLED, reason, code, ran_ns)
    if again and lease.attempt < max_attempts:
        why = _PLACED_AGAIN.get(again, "its place was needed")
        message = f"Attempt {lease.attempt} ended because {why}; it waits to be placed again."
        return Outcome(JobState.PENDING, Reason(again, message, "", evidence), code, ran_ns)
    if again:
        why = _PLACED_AGAIN.get(again, "its place was needed")
        message = f"Attempt {lease.attempt}, the last allowed, ended because {why}."
        hint = "Raise max_attempts, or submit it again."
        return Outcome(JobState.FAILED, Reason(again, message, hint, evidence), code, ran_ns)
    assert end is not None, lease
    if end.reason == "EXITED" and end.code == 0:
        reason = Reason("EXITED", "The task exited with code 0.", "", evidence)
        return Outcome(JobState.SUCCEEDED, reason, 0, ran_ns)
    message = _WORDS.get(end.reason, "The task ended.").format(code=end.code)
    if exit_message and end.reason != "EXITED":
        message = f"{message} {exit_message}"
    reason = Reason(end.reason, message, _HINTS.get(end.reason, ""), evidence)
    return Outcome(JobState.FAILED, reason, code, ran_ns)


def _evidence(lease: Lease) -> dict[str, str]:
    evidence = {"attempt": str(lease.attempt), "lease": lease.lease_id, "node": lease.node_id}
    if lease.exit is not None:
        evidence["exit_code"] = str(lease.exit.code)
        evidence["ran_ns"] = str(lease.exit.ran_ns)
    return evidence
