"""What is kept free for those who come first, while others are placed around it.

A hold takes from the index what a promise needs of what is free now: the places of a blocked head
of the queue, or a reservation's capacity as its window nears. It is put aside for jobs that are
sure to end before the promise falls due, and for the reservation's own jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gridlease_scheduler.domain.job import Allocation, Reason
from gridlease_scheduler.domain.node import Node
from gridlease_scheduler.domain.placing.index import Host, Index
from gridlease_scheduler.domain.placing.vacancy import Slack, slack
from gridlease_scheduler.domain.snapshot import Pending, Reservation, Running

from .backfill import Shadow, ends_by, late
from .reserve import HOLD_MS


@dataclass(frozen=True, slots=True)
class Want:
    """What a promise needs of a node beyond what others are sure to give back in time."""

    node_id: str
    chip: str
    devices: int
    cpu_milli: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(slots=True)
class Hold:
    """One promise: until ``due_ms`` others may use it. ``reason``: what it tells those who wait
    because of it; ``reservation``: whose own jobs pass."""

    due_ms: int
    reason: Reason
    wants: tuple[Want, ...]
    reservation: str = ""
    taken: list[tuple[str, Allocation]] = field(default_factory=list)


class Holds:
    """All promises of one plan, and which of them are in force right now."""

    def __init__(self, index: Index, now_ms: int) -> None:
        self._index = index
        self._now_ms = now_ms
        self._holds: list[Hold] = []
        self._all: tuple[Hold, ...] | None = None  # every one of them, if all are in force

    def __bool__(self) -> bool:
        return bool(self._holds)

    @property
    def nodes(self) -> frozenset[str]:
        """Nodes promised to the heads of the queue."""
        return frozenset(want.node_id for x in self._holds if not x.reservation for want in x.wants)

    def add(self, hold: Hold) -> None:
        """One more promise; in force at once."""
        self._holds.append(hold)
        self._all = None
        self._take(hold)

    def sync(self, task: Pending) -> tuple[Hold, ...]:
        """Puts in force what binds a job, and aside what does not; the former."""
        stays = not (task.longest_ms or task.reservation)
        if stays and self._all is not None:
            return self._all
        bound = []
        for hold in self._holds:
            if stays or self._binds(hold, task):
                bound.append(hold)
                if not hold.taken:
                    self._take(hold)
            else:
                self._release(hold)
        self._all = tuple(bound) if len(bound) == len(self._holds) else None
        return tuple(bound)

    def used(self, task: Pending, milli: int) -> None:
        """A job of a reservation has been placed: so much less is to be kept for it."""
        for hold in self._holds:
            if task.reservation and hold.reservation == task.reservation:
                self._release(hold)
                hold.wants = _less(hold.wants, milli // 1_000)

    def lift(self) -> None:
        """For now nothing is held: the index is as the leases say."""
        for hold in self._holds:
            self._release(hold)

    def clear(self) -> None:
        """All promises are forgotten."""
        self.lift()
        self._holds.clear()

    def _binds(self, hold: Hold, task: Pending) -> bool:
        if task.reservation and task.reservation == hold.reservation:
            return False
        return not (task.longest_ms and self._now_ms + late(task.longest_ms) <= hold.due_ms)

    def _take(self, hold: Hold) -> None:
        for want in hold.wants:
            host = self._index.hosts.get(want.node_id)
            if host is not None:
                allocation = _free_part(host, want)
                self._index.apply(want.node_id, allocation)
                hold.taken.append((want.node_id, allocation))

    def _release(self, hold: Hold) -> None:
        self._all = None
        for node_id, allocation in hold.taken:
            self._index.release(node_id, allocation)
        hold.taken.clear()


def for_head(shadow: Shadow, nodes: Mapping[str, Node], reason: Reason) -> Hold:
    """What the head of the queue will need of its places beyond what is to come free there."""
    wants = []
    for node_id, _ in shadow.places:
        if node_id not in nodes:
            continue
        left, free = shadow.spare[node_id], slack(nodes[node_id])
        want = Want(
            node_id,
            shadow.chip,
            max(0, free.devices.get(shadow.chip, 0) - left.devices.get(shadow.chip, 0)),
            max(0, free.cpu_milli - left.cpu_milli),
            max(0, free.memory_bytes - left.memory_bytes),
            max(0, free.disk_bytes - left.disk_bytes),
        )
        if any((want.devices, want.cpu_milli, want.memory_bytes, want.disk_bytes)):
            wants.append(want)
    return Hold(shadow.start_ms, reason, tuple(wants))


def for_reservations(
    calendar: Iterable[Reservation],
    nodes: Iterable[Node],
    running: Iterable[Running],
    now_ms: int,
) -> list[Hold]:
    """What must stay free for windows that are near or open, beyond what is to come free."""
    due = [x for x in calendar if x.begins_ms - HOLD_MS <= now_ms < x.ends_ms]
    if not due:
        return []
    fleet = sorted(nodes, key=lambda x: (x.site, x.rack, x.node_id))
    rooms: dict[str, Slack] = {x.node_id: slack(x) for x in fleet}
    leases = tuple(running)
    holds = []
    for each in sorted(due, key=lambda x: (x.begins_ms, x.name)):
        sites = {x.node_id for x in fleet if each.site in ("", x.site)}
        here = [x for x in leases if x.allocation.chip == each.chip and x.node_id in sites]
        own = sum(x.allocation.quantity_milli for x in here if x.reservation == each.name)
        coming = sum(
            x.allocation.quantity_milli
            for x in here
            if not x.reservation and (ends_by(x, now_ms) or each.ends_ms) <= each.begins_ms
        )
        left = -(-max(0, each.quantity_milli - own - coming) // 1_000)
        wants = []
        for node in fleet:
            room = rooms[node.node_id]
            many = min(left, room.devices.get(each.chip, 0)) if node.node_id in sites else 0
            if many and node.connected and not node.cordoned:
                wants.append(Want(node.node_id, each.chip, many))
                gone = {**room.devices, each.chip: room.devices[each.chip] - many}
                rooms[node.node_id] = replace(room, devices=gone)
                left -= many
        reason = Reason(
            "HELD_FOR_RESERVATION",
            f"What is free is held back for the reservation {each.name}.",
            "It is placed when the window is over; or say how long it runs (max_duration).",
            {"reservation": each.name, "begins_ms": str(each.begins_ms)},
        )
        holds.append(Hold(each.begins_ms, reason, tuple(wants), each.name))
    return holds


def _free_part(host: Host, want: Want) -> Allocation:
    """As much of a want as is free on a host: the last devices in its order."""
    ids: tuple[str, ...] = ()
    if want.devices and want.chip in host.kind.chips:
        free = host.free[host.kind.chips.index(want.chip)]
        ids = tuple(free[-want.devices :])
    state = host.state
    return Allocation(
        max(0, min(want.cpu_milli, state.cpu_milli)),
        max(0, min(want.memory_bytes, state.memory_bytes)),
        max(0, min(want.disk_bytes, state.disk_bytes)),
        ids,
        want.chip,
        1_000 * len(ids),
    )


def _less(wants: tuple[Want, ...], devices: int) -> tuple[Want, ...]:
    """Wants with so many devices fewer, from the end."""
    found: list[Want] = []
    for want in reversed(wants):
        drop = min(devices, want.devices)
        devices -= drop
        if want.devices > drop:
            found.append(replace(want, devices=want.devices - drop))
    return tuple(reversed(found))
