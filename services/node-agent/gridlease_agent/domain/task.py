"""What a task is made of, as its node was told, and what follows from it alone."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from gridlease_agent.domain.spool import Row, Wanted

SCRATCH = "scratch:"
WORK_PATH = "/work"  # the task's own folder, as the task sees it
REPORT_PATH = f"{WORK_PATH}/.gridlease"
MASTER_PORT = "29500"  # Source: PyTorch's torchrun default


class Tenancy(enum.StrEnum):
    """Who else may use what a task holds."""

    SHARED = "SHARED"
    EXCLUSIVE_DEVICE = "EXCLUSIVE_DEVICE"
    EXCLUSIVE_HOST = "EXCLUSIVE_HOST"


class Egress(enum.StrEnum):
    """Whom a task may call; never another tenant, never the platform."""

    NONE = "NONE"
    PEERS = "PEERS"
    LISTED = "LISTED"
    PUBLIC = "PUBLIC"


class NetworkClass(enum.StrEnum):
    """Whose packets go first."""

    STANDARD = "STANDARD"
    CRITICAL = "CRITICAL"
    BULK = "BULK"


@dataclass(frozen=True, slots=True)
class NetworkGrant:
    """What a lease's traffic is promised, and whom it may call.

    ``path``: the links that were chosen; empty = the node's only one. ``egress_to``: with listed
    egress, "address[/prefix][:port]".
    """

    guaranteed_mbps: int = 0
    network_class: NetworkClass = NetworkClass.STANDARD
    latency_us: int = 0
    path: tuple[str, ...] = ()
    egress: Egress = Egress.NONE
    egress_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One lease's task. Quantities are what the lease holds of this node.

    ``hosts``: of all members of its gang, by their index. ``checkpoint``: what an earlier attempt
    saved last; empty = nothing. ``promised_until``: ISO 8601, until when its place is promised.
    """

    lease_id: str
    name: str
    tenant: str
    attempt: int = 1
    cpu_milli: int = 1000
    memory_bytes: int = 512 << 20
    disk_bytes: int = 1 << 30
    device_ids: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    bundle_digest: str = ""
    outputs: tuple[str, ...] = ()
    runtime: str = ""
    max_duration_ms: int = 0
    notice_ms: int = 30_000
    start_by_ms: int = 600_000
    traceparent: str = ""
    gang_index: int = 0
    hosts: tuple[str, ...] = ()
    checkpoint: str = ""
    promised_until: str = ""
    network: NetworkGrant = NetworkGrant()
    image: str = ""
    tenancy: Tenancy = Tenancy.SHARED
    secrets: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    sealed: bool = False  # its secrets are not on disk: the scheduler has to tell them again
    interactive: bool = False  # a dev-environment
    idle_stop_ms: int = 0
    ssh_keys: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """``projects/P/jobs/J``."""
        return self.name.partition("/tasks/")[0]


@dataclass(frozen=True, slots=True)
class Ending:
    """What is told of an ending beside its code and reason; kept for the report only.

    ``checkpoint``: the id of the newest, told of at ``checkpoint_ns`` (Unix time); empty = none.
    """

    message: str = ""
    memory_peak_bytes: int = 0
    cpu_ns: int = 0
    checkpoint: str = ""
    checkpoint_ns: int = 0


@dataclass(frozen=True, slots=True)
class Overtime:
    """A task that has run for as long as it may; it is killed at ``by_ns`` (boottime)."""

    lease_id: str
    by_ns: int


def scratch(lease_id: str) -> str:
    """The scratch folder of a lease, as a device that is dirty from its start to its scrub."""
    return SCRATCH + lease_id


def wanted(task: Task) -> Wanted:
    """The lease as the state machine sees it: its devices and its scratch folder."""
    devices = (*task.device_ids, scratch(task.lease_id))
    return Wanted(task.lease_id, devices, task.start_by_ms or 600_000)


def environment(task: Task, node_id: str) -> tuple[tuple[str, str], ...]:
    """The tenant's variables, and ours over them."""
    own = {
        "GRIDLEASE_JOB": task.job,
        "GRIDLEASE_TASK": task.name,
        "GRIDLEASE_LEASE": task.lease_id,
        "GRIDLEASE_ATTEMPT": str(task.attempt),
        "GRIDLEASE_NODE": node_id,
        "GRIDLEASE_DEVICES": ",".join(task.device_ids),
        "GRIDLEASE_REPORT_DIR": REPORT_PATH,
        "RANK": str(task.gang_index),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(len(task.hosts) or 1),
        "MASTER_ADDR": task.hosts[0] if len(task.hosts) > 1 else "127.0.0.1",
        "MASTER_PORT": MASTER_PORT,
    }
    if len(task.hosts) > 1:
        own["GRIDLEASE_HOSTS"] = ",".join(task.hosts)
    if task.checkpoint:
        own["GRIDLEASE_CHECKPOINT"] = task.checkpoint
    if task.promised_until:
        own["GRIDLEASE_PROMISED_UNTIL"] = task.promised_until
    if task.traceparent:
        own["TRACEPARENT"] = task.traceparent
    return tuple((dict(task.env) | own).items())


def overtime(row: Row, task: Task, now_ns: int) -> Overtime | None:
    """Whether the task has run for its longest duration: warned then, killed a notice later.

    Args:
        now_ns: boottime of the row's boot.
    """
    if not task.max_duration_ms or row.ready_ns is None:
        return None
    limit_ns = row.ready_ns + task.max_duration_ms * 1_000_000
    if now_ns < limit_ns:
        return None
    return Overtime(row.lease_id, limit_ns + task.notice_ms * 1_000_000)


def end_reason(row: Row, task: Task | None, reason: str, ended_ns: int) -> str:
    """Why a sandbox ended, from its keeper's word and from what the agent knows.

    The keeper sees a deadline or a stop; that billing had refused, or that the longest duration
    was over, stands in the row and in the task.
    """
    if reason not in ("DEADLINE", "STOPPED") or row.stop_at_ns is not None:
        return reason
    if row.last and row.reason:
        return row.reason
    if task is not None and overtime(row, task, ended_ns) is not None:
        return "MAX_DURATION"
    return reason


_TOLD = {
    "START_BY_PASSED": ("NEVER_STARTED", "It was not ready to start within its start_by."),
    "GRANT_REFUSED": ("NEVER_STARTED", "Billing refused its first grant."),
    "SHIM_LOST": ("START_LOST", "Its keeper died; the task with it."),
    "START_LOST": ("START_LOST", "Its keeper left no exit record."),
    "NODE_REBOOT": ("NODE_REBOOT", "The host restarted."),
}


def told(reason: str, message: str) -> tuple[str, str]:
    """The reason and the sentence that the scheduler hears."""
    code, sentence = _TOLD.get(reason, (reason, ""))
    return code, message or sentence
