"""Whom a task may call, as rules of the packet filter; what no rule lets through is dropped.

    destinations(("203.0.113.7:443",)) -> parsed, or Invalid
    filter_lines(...) -> the whole table of the fabric, for ``nft -f``: replaced at once, never half

Two locks on one door: the routing table of each task (``traffic``) ends in *unreachable*, and this
table drops what it does not name. Returning packets of a flow that was let out come back.

Source: nft(8); RFC 6890 (special-purpose addresses).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from gridlease_kernel.faults import Invalid

from gridlease_agent.domain.task import Egress, NetworkGrant

# Never public, whoever asks. Source: RFC 6890, and RFC 6598 for the fabric's own.
SPECIAL = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
# Not to be had by naming them either: the node itself, its fabric, a cloud's metadata.
NEVER = ("0.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
_EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class Destination:
    """One network that may be called. ``port``: of TCP and UDP; 0 = every port and protocol."""

    network: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Door:
    """One task's part of the table. ``peers``: addresses of its gang on this node."""

    interface: str
    grant: NetworkGrant
    peers: tuple[str, ...] = ()


def destinations(listed: Sequence[str]) -> tuple[Destination, ...]:
    """``address[/prefix][:port]``, parsed.

    Raises:
        Invalid: EGRESS_ADDRESS; IPv6 too, which the fabric does not carry.
    """
    return tuple(_destination(words) for words in listed)


def _destination(words: str) -> Destination:
    address, _, port = words.partition(":")
    try:
        network = ipaddress.IPv4Network(address, strict=False)
        number = int(port or "0")
        if not 0 <= number <= 65_535 or bool(port) != bool(number):
            raise ValueError(port)
    except ValueError as trouble:
        raise Invalid(
            f"{words!r} is not an address that this node can let a task call.",
            reason="EGRESS_ADDRESS",
            field="network.egress_to",
            remedy="Give IPv4 addresses: 203.0.113.7:443, 198.51.100.0/24.",
        ) from trouble
    return Destination(str(network), number)


def reaches(grant: NetworkGrant) -> tuple[str, ...]:
    """What the task's routing table leads out to; the filter decides within it."""
    if grant.egress is Egress.PUBLIC:
        return (_EVERYWHERE,)
    if grant.egress is Egress.LISTED:
        found = {each.network: None for each in destinations(grant.egress_to)}
        return tuple(found)
    return ()


def filter_lines(
    doors: Sequence[Door], uplinks: Sequence[str], protected: Sequence[str]
) -> list[str]:
    """The fabric's whole table.

    ``protected``: addresses of this host and of the platform, which no grant opens.
    """
    never = ", ".join(_disjoint((*NEVER, *protected)))
    special = ", ".join(_disjoint((*SPECIAL, *protected)))
    lines = [
        "table inet gridlease",
        "delete table inet gridlease",
        "table inet gridlease {",
        f"  set never {{ type ipv4_addr; flags interval; elements = {{ {never} }} }}",
        f"  set special {{ type ipv4_addr; flags interval; elements = {{ {special} }} }}",
    ]
    for door in doors:
        lines += [f"  chain {door.interface} {{", *_chain(door), "  }"]
    jumps = [f"    iifname {door.interface} jump {door.interface}" for door in doors]
    lines += [
        "  chain forward {",
        "    type filter hook forward priority 0; policy drop;",
        "    ct state established,related accept",
        "    ct state invalid drop",
        *jumps,
        "  }",
        "  chain input {",
        "    type filter hook input priority 0; policy drop;",
        "  }",
    ]
    if uplinks:
        names = ", ".join(uplinks)
        lines += [
            "  chain leave {",
            "    type nat hook postrouting priority 100; policy accept;",
            f"    oifname {{ {names} }} masquerade",
            "  }",
        ]
    return [*lines, "}"]


def _chain(door: Door) -> list[str]:
    lines = [f"    ip daddr {peer} accept" for peer in door.peers]
    grant = door.grant
    if grant.egress is Egress.LISTED:
        lines.append("    ip daddr @never drop")
        for each in destinations(grant.egress_to):
            if each.port:
                lines.append(f"    ip daddr {each.network} tcp dport {each.port} accept")
                lines.append(f"    ip daddr {each.network} udp dport {each.port} accept")
            else:
                lines.append(f"    ip daddr {each.network} accept")
    elif grant.egress is Egress.PUBLIC:
        lines += ["    ip daddr @special drop", "    meta nfproto ipv4 accept"]
    return [*lines, "    drop"]


def _disjoint(networks: Sequence[str]) -> list[str]:
    """Merged: the kernel refuses intervals that overlap."""
    parsed = [ipaddress.IPv4Network(each, strict=False) for each in networks]
    return [str(each) for each in ipaddress.collapse_addresses(parsed)]
