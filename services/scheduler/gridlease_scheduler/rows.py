"""What crosses the ports: rows as they are written and read, and facts about them.

Part of ``ports.py``, which carries all of these names.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from .domain.job import Allocation, Reason
from .domain.lease import Lease
from .domain.node import Node
from .domain.plan import Member, Pending, Placed


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as it is written. ``inventory``: as reported, without the devices."""

    node_id: str
    site: str
    public_key: str
    state: str
    cordoned: bool
    generation: int
    spool_id: str | None
    inventory: dict[str, Any] | None
    seen_at: datetime.datetime | None
    created_at: datetime.datetime
    revoked: bool = False
    draining: bool = False
    silent_ms: int = 0  # since it was last heard
    rack: str = ""  # an operator's word
    rail: str = ""
    cordon_note: str = ""
    cordoned_until: datetime.datetime | None = None

    @property
    def ailment(self) -> str:
        """Why the node itself says that it takes no work."""
        return str((self.inventory or {}).get("ailment", ""))


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device, and the lease that holds it now (empty = free)."""

    device_id: str
    chip: str
    vendor: str
    memory_bytes: int
    emulated: bool
    clean: bool
    lease_id: str = ""
    island: str = ""
    ailment: str = ""  # why it takes no work; empty = it is well
    facts: dict[str, Any] = field(default_factory=dict)  # what else the node told, for people


@dataclass(frozen=True, slots=True)
class NodeDetail:
    """A node with its devices and what its unclosed leases hold."""

    row: NodeRow
    devices: tuple[DeviceRow, ...]
    used_cpu_milli: int
    used_memory_bytes: int
    used_disk_bytes: int
    promised_mbps: int = 0


@dataclass(frozen=True, slots=True)
class InventoryReport:
    """What a node says that it has. ``facts``: all but the devices, as it came."""

    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    emulated: bool
    facts: dict[str, Any]
    devices: tuple[DeviceRow, ...]


@dataclass(frozen=True, slots=True)
class HeldLease:
    """An unclosed lease with what the domain does not need to know of it."""

    lease: Lease
    job: str
    index: int
    spool_id: str | None
    ready: bool
    exit_message: str
    allocation: Allocation
    stop: Reason = field(default_factory=Reason)  # why it was told to end
    deadline: datetime.datetime | None = None  # when its warning is over
    given_ms: int | None = None  # from the warning to the end; None = no end was reported
    ran_ms: int = 0  # since it was ready, by the database's clock
    rate_nano_per_hour: int = 0
    network_mbps: int = 0
    network_path: str = ""


@dataclass(frozen=True, slots=True)
class NewLease:
    """A lease about to be written: one member of a job."""

    lease_id: str
    member: Member
    rate_nano_per_hour: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A placement that billing holds the money for: all its leases, written together."""

    placed: Placed
    leases: tuple[NewLease, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Standing:
    """A job that waits, with the reason that stands on it."""

    pending: Pending
    reason: Reason


@dataclass(frozen=True, slots=True)
class QueueChanges:
    """What changed among those that wait. ``left``: they do not wait any more, or never did."""

    waiting: tuple[Standing, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Instant:
    """When something was read. ``transaction``: the oldest that was open; ask for changes since it
    next time, and miss nothing. ``governed``: there are quotas, reservations, or
    sites with figures of their power. ``linked``: links are described."""

    transaction: int
    ms: int
    governed: bool
    linked: bool = False


@dataclass(frozen=True, slots=True)
class FleetChanges:
    """Nodes as they are now. ``gone``: not to be planned with. ``changed``: the transaction of
    each node's last change; as long as it is the same, the node is as it was."""

    nodes: tuple[Node, ...]
    gone: tuple[str, ...]
    changed: dict[str, int]


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a node has not been heard, by the database's clock, in milliseconds."""

    node_id: str
    state: str
    silent_ms: int


@dataclass(frozen=True, slots=True)
class Event:
    """A change that happened."""

    type: str
    entity: str
    project: str = ""
    reason: Reason = field(default_factory=Reason)
    facts: dict[str, str] = field(default_factory=dict)
    sequence: int = 0
    time: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events: after a sequence number, of a project and an entity (empty = of all)."""

    project: str
    entity: str
    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A one-time token; ``used_key`` is that of the node that has joined by it."""

    node_id: str
    site: str
    expired: bool
    used_key: str | None
