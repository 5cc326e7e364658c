"""What the kernel must be told so that each task's packets go where they may, as fast as promised.

Every task has an address of its own behind an interface of its own, in a namespace (the *fabric*)
that stands between tasks, host and uplinks. Its packets are looked up in a table of its own that
knows what it may reach and ends in *unreachable*: what is not allowed has no way. Uplinks share
their rate by HTB: a class a task, guarantees first, then by priority.

Lines for ``ip -batch`` and ``tc -batch``; pure, so that they are tested without a kernel. The
guarantee is given in payload; rates here are of whole packets on the wire.

Source: tc-htb(8), tc-u32(8), ip-rule(8). Quantum and burst are set by hand, because the defaults
by r2q warn and are unfair at extreme rates.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_HEAD_PERMILLE = 1_050  # headers, and what a guarantee needs to be met in payload
_LEAST_KBIT = 1_000  # of a task without a guarantee
_FIRST_CLASS = 0x10
_FIRST_TABLE = 1_000
_FIRST_PREFERENCE = 10_000
_MTU_BYTES = 1_514
_LAST = 0xFFFF  # the class of packets that no task's class claims: the lowest
MAX_SLOT = 4_095
_FIRST_METRIC, _LAST_METRIC = 10, 4_278_198_272


class Class(enum.IntEnum):
    """HTB's prio: lower is asked first when rate is left over."""

    CRITICAL = 0
    STANDARD = 3
    BULK = 7


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface of the fabric that leads out. ``gateway``: the next hop; empty = on the link."""

    name: str
    rate_mbps: int
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """One task's promise. ``slot`` numbers it on this host, from 0.

    ``reaches``: destinations (CIDR) that it may have; ``paths``: uplinks by name, the first that
    works is taken; ``mbps``: guaranteed payload, 0 = none.
    """

    lease_id: str
    slot: int
    network_class: Class = Class.STANDARD
    mbps: int = 0
    reaches: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def interface(self) -> str:
        """Its end in the fabric."""
        return f"t{self.slot}"

    @property
    def address(self) -> str:
        """Its own address."""
        return _address(self.slot, 1)

    @property
    def gateway(self) -> str:
        """The fabric's address on its link."""
        return _address(self.slot, 0)

    @property
    def macs(self) -> tuple[str, str]:
        """Of the fabric's end and of its own: nobody has to ask who has which address."""
        return _mac(self.slot, 0), _mac(self.slot, 1)


def _mac(slot: int, side: int) -> str:
    number = 2 * slot + side
    return f"02:67:6c:00:{number >> 8:02x}:{number & 255:02x}"


def _address(slot: int, side: int) -> str:
    """Of a /31 out of 100.64.0.0/10, the space for carriers' own use (RFC 6598)."""
    assert 0 <= slot <= MAX_SLOT, slot
    number = (100 << 24) + (64 << 16) + 2 * slot + side
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def uplink_lines(uplink: Uplink) -> list[str]:
    """``tc`` lines that make an uplink share its rate."""
    rate = uplink.rate_mbps * 1_000
    dev = uplink.name
    return [
        f"qdisc replace dev {dev} root handle 1: htb default {_LAST:x}",
        f"class replace dev {dev} parent 1: classid 1:1 {_share(rate, rate, 0)}",
        f"class replace dev {dev} parent 1:1 classid 1:{_LAST:x} "
        + _share(_LEAST_KBIT, rate, Class.BULK),
        f"qdisc replace dev {dev} parent 1:{_LAST:x} handle {_LAST:x}: pfifo limit 100",
    ]


def class_lines(uplink: Uplink, traffic: Traffic) -> list[str]:
    """``tc`` lines of one task's class on one uplink; again and again they change nothing."""
    number, dev = _FIRST_CLASS + traffic.slot, uplink.name
    link = uplink.rate_mbps * 1_000
    kbit = min(link, traffic.mbps * _HEAD_PERMILLE) if traffic.mbps else _LEAST_KBIT
    limit = max(50, min(1_000, kbit * 20 // 8 // _MTU_BYTES))  # 20 ms of its rate
    share = _share(kbit, link, traffic.network_class)
    return [
        f"class replace dev {dev} parent 1:1 classid 1:{number:x} {share}",
        f"qdisc replace dev {dev} parent 1:{number:x} handle {number:x}: pfifo limit {limit}",
        f"filter replace dev {dev} parent 1: protocol ip prio 1 handle 800::{number:x} u32 "
        f"match ip src {traffic.address}/32 flowid 1:{number:x}",
    ]


def class_gone_lines(uplink: Uplink, traffic: Traffic) -> list[str]:
    """``tc`` lines that take one task's class away."""
    number, dev = _FIRST_CLASS + traffic.slot, uplink.name
    return [
        f"filter del dev {dev} parent 1: protocol ip prio 1 handle 800::{number:x} u32",
        f"class del dev {dev} classid 1:{number:x}",
    ]


def _share(kbit: int, ceil_kbit: int, priority: int) -> str:
    burst = max(2 * _MTU_BYTES, kbit * 4 // 8)  # 4 ms of its rate
    ceil_burst = max(2 * _MTU_BYTES, ceil_kbit * 2 // 8)
    return (
        f"htb rate {kbit}kbit ceil {ceil_kbit}kbit prio {int(priority)} "
        f"quantum {_MTU_BYTES * (8 if priority == 0 else 1)} burst {burst}b cburst {ceil_burst}b"
    )


def route_lines(
    traffic: Traffic, uplinks: Mapping[str, Uplink], working: Iterable[str]
) -> list[str]:
    """``ip`` lines of the task's own table: what it may reach, by each of its working paths.

    The first path has the least metric; when its link dies the kernel itself takes the next, in
    less time than it would take to tell anybody.
    """
    table, alive = _FIRST_TABLE + traffic.slot, set(working)
    lines = [
        f"route replace unreachable default metric {_LAST_METRIC} table {table}",
        f"route replace {traffic.address}/32 dev {traffic.interface} table {table}",
    ]
    for destination in traffic.reaches:
        lines.append(f"route replace unreachable {destination} metric {_LAST_METRIC} table {table}")
        for metric, name in enumerate(traffic.paths, _FIRST_METRIC):
            via = f"via {uplinks[name].gateway} " if uplinks[name].gateway else ""
            route = f"{destination} {via}dev {name} metric {metric} table {table}"
            if name in alive:
                lines.append(f"route replace {route}")
    return lines


def path_gone_lines(traffic: Traffic, name: str) -> list[str]:
    """``ip`` lines that take a path away from a task; whether or not it still is there."""
    table = _FIRST_TABLE + traffic.slot
    return [
        f"route del {destination} dev {name} table {table}"
        for destination in traffic.reaches
        if name in traffic.paths
    ]


def rule_lines(traffic: Traffic) -> list[str]:
    """``ip`` lines: packets from the task are looked up in its own table and nowhere else."""
    preference, table = _FIRST_PREFERENCE + 2 * traffic.slot, _FIRST_TABLE + traffic.slot
    return [
        f"rule add pref {preference} iif {traffic.interface} from {traffic.address} lookup {table}",
        # Packets that bear another's address go nowhere.
        f"rule add pref {preference + 1} iif {traffic.interface} unreachable",
    ]


def rule_gone_lines(traffic: Traffic) -> list[str]:
    """``ip`` lines that take the task's rules and table away."""
    preference, table = _FIRST_PREFERENCE + 2 * traffic.slot, _FIRST_TABLE + traffic.slot
    return [
        f"rule del pref {preference}",
        f"rule del pref {preference + 1}",
        f"route flush table {table}",
    ]


def neighbours(traffic: Traffic, others: Sequence[Traffic]) -> list[str]:
    """``ip`` lines by which a task reaches others of its gang on the same host."""
    table = _FIRST_TABLE + traffic.slot
    return [
        f"route replace {other.address}/32 dev {other.interface} table {table}"
        for other in others
        if other.slot != traffic.slot
    ]
