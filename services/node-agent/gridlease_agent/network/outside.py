"""The fabric's ways out: a cable to the host, which forwards, or an interface of its own.

On the host stands one table of the packet filter: what comes from the fabric goes through and on,
and never to the host itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from typing import TYPE_CHECKING

from gridlease_kernel.faults import Unreachable

from gridlease_agent.domain.traffic import Uplink
from gridlease_agent.network.fabric import told_to

if TYPE_CHECKING:
    from gridlease_agent.network.tasks import Way

HOST = "host"
# The last pair of 100.64.0.0/10, which no slot has.
_HOST_END, _FABRIC_END = "100.127.255.254", "100.127.255.255"


def addresses(namespace: str) -> list[str]:
    """Every IPv4 address of the host itself."""
    rows = json.loads(told_to([*_ip(namespace), "-j", "-4", "addr"]) or "[]")
    found = {info["local"] for row in rows for info in row.get("addr_info", ())}
    return sorted(each for each in found if not ipaddress.ip_address(each).is_loopback)


def _ip(namespace: str) -> list[str]:
    return ["ip", "-n", namespace] if namespace else ["ip"]


class Outside:
    """One node's ways out. ``name``: the host's namespace, "" = our own."""

    def __init__(self, mark: str, fabric: str, name: str) -> None:
        self._mark = mark
        self._fabric = fabric
        self.name = name

    def inside(self, way: str) -> str:
        """The interface's name in the fabric."""
        return "uh" if way == HOST else way

    def uplink(self, way: Way) -> Uplink:
        """It as the fabric knows it."""
        gateway = _HOST_END if way.name == HOST else way.gateway
        return Uplink(self.inside(way.name), way.rate_mbps, gateway)

    def connect(self, way: Way) -> None:
        """Lay the cable, or take the interface; what is there already stays.

        Raises:
            Unreachable: NETWORK_REFUSED.
        """
        inner = self.inside(way.name)
        rows = json.loads(told_to(["ip", "-n", self._fabric, "-j", "link"]) or "[]")
        if inner in {row.get("ifname") for row in rows}:
            return
        if way.name == HOST:
            self._lay()
        else:
            told_to([*_ip(self.name), "link", "set", way.name, "netns", self._fabric])
            told_to(["ip", "-n", self._fabric, "addr", "add", way.address, "dev", way.name])
        told_to(["ip", "-n", self._fabric, "link", "set", inner, "up"])

    def _lay(self) -> None:
        outer = f"{self._mark}h"
        with contextlib.suppress(Unreachable):
            told_to([*_ip(self.name), "link", "del", outer])
        told_to([*_ip(self.name), "link", "add", outer, "type", "veth", "peer", "name", "uh",
                 "netns", self._fabric])  # fmt: skip
        told_to(["ip", "-n", self._fabric, "addr", "add", f"{_FABRIC_END}/31", "dev", "uh"])
        told_to([*_ip(self.name), "addr", "add", f"{_HOST_END}/31", "dev", outer])
        told_to([*_ip(self.name), "link", "set", outer, "up"])
        self._run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
        self._run(["nft", "-f", "-"], self._table(outer))

    def _table(self, outer: str) -> list[str]:
        table = f"inet {self._mark}"
        return [
            f"table {table}",
            f"delete table {table}",
            f"table {table} {{",
            "  chain input {",
            "    type filter hook input priority -10; policy accept;",
            f"    iifname {outer} drop",
            "  }",
            "  chain forward {",
            "    type filter hook forward priority -10; policy accept;",
            f"    oifname {outer} ct state established,related accept",
            f"    oifname {outer} drop",
            "  }",
            "  chain leave {",
            "    type nat hook postrouting priority 100; policy accept;",
            f"    ip saddr {_FABRIC_END} oifname != {outer} masquerade",
            "  }",
            "}",
        ]

    def _run(self, command: list[str], lines: list[str] | None = None) -> None:
        into = ["ip", "netns", "exec", self.name] if self.name else []
        told_to([*into, *command], lines or ())

    def close(self) -> None:
        """Take the cable and the host's table away, where they are."""
        for command in (["nft", "delete", "table", "inet", self._mark],
                        ["ip", "link", "del", f"{self._mark}h"]):  # fmt: skip
            with contextlib.suppress(Unreachable):
                self._run(command)
