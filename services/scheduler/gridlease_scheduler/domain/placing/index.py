"""Nodes by what is free on them, so that a decision looks at states and not at nodes.

Nodes of one kind with the same left of everything are one ``State``: they share one price, and any
of them will do, the first in the fixed order is taken. A placement moves one node from a state to
another; who keeps something derived from states (``shelf``) reads only what moved since it last
looked. Built from a snapshot, or kept between passes: then it equals one built anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Allocation
from gridlease_scheduler.domain.node import Device, Node

from .fragmentation import Request, Room
from .packing import Fleet

WHOLE = 1_000
MIB = 2**20
CPU = ""  # the pool of every node, for tasks without accelerators
_LOG = 50_000  # moves between two looks at the logs' length; who lags behind starts anew
_NEAR = 512  # hosts of a state that are asked for an image
_SLACK = 64  # numbers of hosts that left a state which may stand in its queue


@dataclass(slots=True, eq=False)
class Pool:
    """The nodes that have one chip, and what happened to them.

    ``start``: entries forgotten so far. ``followed``: somebody reads ``moved``.
    """

    hosts: dict[int, Host] = field(default_factory=dict)

    born: list[State] = field(default_factory=list)
    moved: list[tuple[Host, State | None, State | None]] = field(default_factory=list)
    born_start: int = 0
    moved_start: int = 0
    followed: bool = False
    freed: int = 0  # counts up when something may fit that did not before

    def forget(self) -> None:
        """Bound the logs."""
        self.born_start += len(self.born)
        self.born.clear()
        self.moved_start += len(self.moved)
        self.moved.clear()


@dataclass(slots=True, eq=False)
class Kind:
    """Nodes that are alike in all that leases do not change. ``like``: one of them."""

    serial: int
    like: Node
    chips: tuple[str, ...]
    pools: tuple[Pool, ...]  # of its chips, and of all nodes
    order: tuple[int, int, int]  # the fixed order: many devices first, then few CPUs for each
    islands: bool  # some of its devices are joined by a faster interconnect than others


@dataclass(slots=True, eq=False)
class State:
    """Nodes of a kind with the same left of everything; ``free`` counts devices by chip."""

    kind: Kind
    free: tuple[int, ...]
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    mbps: int
    sort: tuple[object, ...]
    count: int = 0
    queue: list[int] = field(default_factory=list)  # hosts' numbers; those that left are skipped
    after: dict[object, State] = field(default_factory=dict)  # once a shape was taken from it


@dataclass(slots=True, eq=False)
class Host:
    """A node, what is free on it by name, and where it stands: rack, rail and site by number."""

    number: int
    node: Node
    kind: Kind
    state: State
    free: list[list[str]]
    groups: tuple[int, ...]
    changed: bool = False

    def view(self) -> Node:
        """The node as it is now."""
        if self.changed:
            state, node = self.state, self.node
            idle = {device for each in self.free for device in each}
            taken = {x.device_id for x in node.devices if x.clean and x.device_id not in idle}
            dirty = {x.device_id for x in node.devices if not x.clean}
            self.node = replace(
                node,
                used_cpu_milli=node.cpu_milli - state.cpu_milli,
                used_memory_bytes=node.memory_bytes - state.memory_bytes,
                used_disk_bytes=node.disk_bytes - state.disk_bytes,
                reserved_mbps=node.link_mbps - state.mbps,
                held=frozenset(taken | (node.held & dirty)),
            )
            self.changed = False
        return self.node


class Index:
    """All nodes of a pool, by state."""

    def __init__(self, nodes: Iterable[Node], catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.hosts: dict[str, Host] = {}
        self.by_number: list[Host | None] = []
        self.kinds: dict[tuple[object, ...], Kind] = {}
        self.states: dict[tuple[object, ...], State] = {}
        self.of_kind: list[list[State]] = []
        self.made = 0  # states so far
        self.pools: dict[str, Pool] = {CPU: Pool()}
        self.levels: tuple[dict[object, int], ...] = ({}, {}, {})
        self.members: tuple[list[list[Host]], ...] = ([], [], [])
        self.real: dict[str, int] = {}  # devices of each chip on real nodes
        self.railed = False  # some node tells its rail
        self.version = 0  # counts up with each new kind, chip or group
        self.shelves: dict[object, object] = {}
        self._seen = 0
        given = list(nodes)
        self.prices = Fleet(_rooms(given))
        for node in sorted(given, key=lambda x: (x.site, x.rack, x.node_id)):
            self.replace(node)

    # -- what changes -----------------------------------------------------------------------

    def replace(self, node: Node) -> None:
        """Put a node in, or what is now known of it in the place of what was."""
        before = self.hosts.get(node.node_id)
        kind = self._kind(node)
        free = _free(node, kind)
        state = self._state(
            kind, tuple(map(len, free)), node.free_cpu_milli, node.free_memory_bytes,
            node.free_disk_bytes, node.link_mbps - node.reserved_mbps,
        )  # fmt: skip
        groups = self._groups(node)
        if before is not None and before.groups != groups:
            self.remove(node.node_id)
            before = None
        if before is None:
            host = Host(len(self.by_number), node, kind, state, free, groups)
            self.by_number.append(host)
            self.hosts[node.node_id] = host
            for level, group in enumerate(groups):
                self.members[level][group].append(host)
            self._count_real(node, 1)
            for pool in kind.pools:
                pool.hosts[host.number] = host
            self._enter(host, None, state)
        else:
            self._count_real(before.node, -1)
            self._count_real(node, 1)
            for pool in before.kind.pools:
                del pool.hosts[before.number]
            for pool in kind.pools:
                pool.hosts[before.number] = before
            before.node, before.kind, before.free, before.changed = node, kind, free, False
            self._move(before, state)
        for pool in kind.pools:
            pool.freed += 1

    def remove(self, node_id: str) -> None:
        """Take a node out."""
        host = self.hosts.pop(node_id)
        self.by_number[host.number] = None
        for level, group in enumerate(host.groups):
            self.members[level][group].remove(host)
        self._count_real(host.node, -1)
        host.state.count -= 1
        for pool in host.kind.pools:
            del pool.hosts[host.number]
            if pool.followed:
                pool.moved.append((host, host.state, None))

    def take(self, host: Host, chip: int, shape: Shape) -> tuple[str, ...]:
        """Give one member what it takes of a host; the devices that it gets, by name."""
        state = host.state
        after = state.after.get(shape)
        if after is None:
            after = state.after[shape] = self.without(state, chip, shape)
        devices: tuple[str, ...] = ()
        count = shape.devices
        if count:
            free = host.free[chip]
            if count == 1 or not host.kind.islands:
                devices = tuple(free[:count])
                del free[:count]
            else:
                devices = _together(host.node, free, count)
                host.free[chip] = [each for each in free if each not in devices]
        self._move(host, after)
        host.changed = True
        return devices

    def apply(self, node_id: str, allocation: Allocation, mbps: int = 0) -> None:
        """A lease holds this of a node; it must be free."""
        self._held(node_id, allocation, mbps, 1)

    def release(self, node_id: str, allocation: Allocation, mbps: int = 0) -> None:
        """A lease that was not written, or that left no trace, holds this no more."""
        self._held(node_id, allocation, mbps, -1)
        for pool in self.hosts[node_id].kind.pools:
            pool.freed += 1

    def _held(self, node_id: str, allocation: Allocation, mbps: int, sign: int) -> None:
        host = self.hosts[node_id]
        ids = set(allocation.device_ids)
        if ids:
            at = host.kind.chips.index(allocation.chip)
            free = host.free[at]
            assert (ids <= set(free)) if sign > 0 else ids.isdisjoint(free), (node_id, allocation)
            kept = [x for x in free if x not in ids] if sign > 0 else [*free, *ids]
            host.free[at] = sorted(kept, key=lambda x: (len(x), x))
        state = host.state
        after = self._state(
            host.kind, tuple(map(len, host.free)),
            state.cpu_milli - sign * allocation.cpu_milli,
            state.memory_bytes - sign * allocation.memory_bytes,
            state.disk_bytes - sign * allocation.disk_bytes,
            state.mbps - sign * mbps,
        )  # fmt: skip
        self._move(host, after)
        host.changed = True

    # -- what is asked ----------------------------------------------------------------------

    def first(self, state: State) -> Host:
        """The first host in a state that is not empty, in the fixed order."""
        queue, hosts = state.queue, self.by_number
        while True:
            host = hosts[queue[0]]
            if host is not None and host.state is state:
                return host
            heappop(queue)

    def near(self, state: State, image: str) -> Host:
        """The first host in a state that has the image at hand; without one, the first of all.

        Nodes in one state are alike in all that a price knows, so no other choice is moved.
        """
        first = self.first(state)
        if not image:
            return first
        digest = image.partition("@")[2]
        for number in sorted(state.queue[:_NEAR]):
            host = self.by_number[number]
            if host is None or host.state is not state:
                continue
            if image in host.node.images or digest in host.node.images:
                return host
        return first

    def living(self) -> list[State]:
        """Every state that some node is in, in a fixed order."""
        return sorted((x for x in self.states.values() if x.count), key=lambda x: x.sort)

    def views(self) -> tuple[Node, ...]:
        """All nodes as they are now."""
        return tuple(host.view() for host in self.hosts.values())

    def cost(self, chip: str, state: State) -> float:
        """The price of what is left of one chip in a state: the packing policy's own."""
        idle = state.free[state.kind.chips.index(chip)]
        if not idle:
            return 0.0
        usable = self.prices.ahead.usable.get(chip)
        if usable is None or idle >= len(usable[0].by_whole):  # a chip or a size never seen before
            lesson = self.prices.lesson
            nodes = [host.node for host in self.hosts.values()]
            self.prices = Fleet(_rooms([*nodes, *(kind.like for kind in self.kinds.values())]))
            self.prices.lesson += lesson
        room = Room(chip, state.cpu_milli, state.memory_bytes // MIB, (WHOLE,) * idle)
        return self.prices.cost(room)

    @property
    def freed(self) -> int:
        """Counts up when something comes free anywhere."""
        return self.pools[CPU].freed

    @property
    def lesson(self) -> int:
        """Which state of learning the prices are of."""
        return self.prices.lesson

    def arrive(self, request: Request) -> None:
        """The packing policy learns from what is asked for."""
        self.prices.arrive(request)

    # -- how it is kept ---------------------------------------------------------------------

    def _move(self, host: Host, after: State) -> None:
        before = host.state
        if before is not after:
            before.count -= 1
            host.state = after
            self._enter(host, before, after)

    def _enter(self, host: Host, before: State | None, after: State) -> None:
        after.count = count = after.count + 1
        queue = after.queue
        heappush(queue, host.number)
        if len(queue) > _SLACK and len(queue) > 4 * count:
            self._tidy(after)
        kind = host.kind
        for pool in kind.pools:
            if count == 1:
                pool.born.append(after)
            if pool.followed:
                pool.moved.append((host, before, after))
        if before is not None and before.kind is not kind:
            for pool in before.kind.pools:
                if pool not in kind.pools and pool.followed:
                    pool.moved.append((host, before, None))
        self._seen += 1
        if self._seen >= _LOG:
            self._seen = 0
            for pool in self.pools.values():
                pool.forget()

    def _tidy(self, state: State) -> None:
        """Forget the numbers of hosts that left, and those noted twice."""
        hosts = self.by_number
        stay = {x for x in state.queue if (host := hosts[x]) is not None and host.state is state}
        state.queue[:] = sorted(stay)

    def without(self, state: State, chip: int, shape: Shape) -> State:
        """The state of a node once one member of a shape has been put on it."""
        free = state.free
        if shape.devices:
            free = (*free[:chip], free[chip] - shape.devices, *free[chip + 1 :])
        return self._state(
            state.kind, free, state.cpu_milli - shape.cpu_milli,
            state.memory_bytes - shape.memory_bytes, state.disk_bytes - shape.disk_bytes,
            state.mbps - shape.mbps,
        )  # fmt: skip

    def _state(
        self, kind: Kind, free: tuple[int, ...], cpu: int, memory: int, disk: int, mbps: int
    ) -> State:
        key = (kind.serial, free, cpu, memory, disk, mbps)
        state = self.states.get(key)
        if state is None:
            sort = (*kind.order, free, cpu, memory, disk, mbps, kind.serial)
            state = State(kind, free, cpu, memory, disk, mbps, sort)
            self.states[key] = state
            self.of_kind[kind.serial].append(state)
            self.made += 1
        return state

    def _kind(self, node: Node) -> Kind:
        capacity = (node.cpu_milli, node.memory_bytes, node.disk_bytes, node.link_mbps)
        counts: dict[tuple[str, str, int, bool], int] = {}
        for device in node.devices:
            ready = device.clean or device.device_id in node.held
            what = (device.chip, device.vendor, device.memory_bytes, ready)
            counts[what] = counts.get(what, 0) + 1
        ailing = tuple(sorted((x.chip, x.vendor, x.memory_bytes) for x in node.ailing))
        key = (
            node.site, node.cpu_chip, capacity, tuple(sorted(counts.items())), node.runtimes,
            node.connected, node.cordoned, node.emulated, node.drivers, node.architecture,
            node.rdma, node.threads_per_core, ailing,
        )  # fmt: skip
        kind = self.kinds.get(key)
        if kind is None:
            chips = tuple(sorted({device.chip for device in node.devices}))
            many = len(node.devices)
            islands = any(device.island for device in node.devices)
            order = (-many, node.cpu_milli // max(1, many), len(self.kinds))
            pools = tuple(self.pools.setdefault(chip, Pool()) for chip in (*chips, CPU))
            kind = self.kinds[key] = Kind(len(self.kinds), node, chips, pools, order, islands)
            self.of_kind.append([])
            self.version += 1
        return kind

    def _groups(self, node: Node) -> tuple[int, ...]:
        """The numbers of its rack, rail and site; where one is not known it stands alone."""
        alone = ("", node.node_id)
        self.railed |= bool(node.rail)
        keys: tuple[object, ...] = (
            (node.site, node.rack) if node.rack else alone,
            (node.site, node.rail) if node.rail else alone,
            node.site,
        )
        found = []
        for level, key in enumerate(keys):
            numbers = self.levels[level]
            if key not in numbers:
                numbers[key] = len(numbers)
                self.members[level].append([])
            found.append(numbers[key])
        return tuple(found)

    def _count_real(self, node: Node, sign: int) -> None:
        if node.emulated:
            return
        for device in node.devices:
            before = self.real.get(device.chip, 0)
            self.real[device.chip] = before + sign
            if (before > 0) != (before + sign > 0):
                self.version += 1


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What one member takes of a node, once for each distinct set of amounts."""

    devices: int
    cpu_milli: int
    memory_bytes: int
    disk_bytes: int
    mbps: int


def _free(node: Node, kind: Kind) -> list[list[str]]:
    return [[x.device_id for x in node.free_devices(chip)] for chip in kind.chips]


def _rooms(nodes: Iterable[Node]) -> list[Room]:
    """Empty nodes as the packing policy counts its supply: one room for each chip of a node."""
    rooms = []
    for node in nodes:
        cpu_milli = node.cpu_milli
        for chip in sorted({x.chip for x in node.devices}) or [CPU]:
            count = sum(x.chip == chip for x in node.devices)
            rooms.append(Room(chip, cpu_milli, node.memory_bytes // MIB, (WHOLE,) * count))
            cpu_milli = 0
    return rooms


def _together(node: Node, free: list[str], count: int) -> tuple[str, ...]:
    """Devices of as few islands as can be: the tightest that holds all, else the largest first."""
    of: dict[str, Device] = {x.device_id: x for x in node.devices}
    islands: dict[str, list[str]] = {}
    for each in free:
        islands.setdefault(of[each].island or each, []).append(each)
    found: list[str] = []
    while len(found) < count:
        left = count - len(found)
        holds = [x for x in islands if len(islands[x]) >= left]
        name = min(holds or islands, key=lambda x: len(islands[x]) if holds else -len(islands[x]))
        found.extend(islands.pop(name)[:left])
    return tuple(found)
