"""Networks of this node's tasks: a namespace, a cable to the fabric, and rules for each.

Needs root. What there is stands in the kernel and in each lease's ``spec.json``; nothing here is
lost with the process. Names begin with a mark of the node's state folder, so two nodes on one
machine never meet, and what no lease owns is found by its name and removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Invalid, Precondition, Unreachable

from gridlease_agent.domain import egress
from gridlease_agent.domain.egress import Door
from gridlease_agent.domain.task import Egress, NetworkClass
from gridlease_agent.domain.traffic import MAX_SLOT, Class, Traffic
from gridlease_agent.network.fabric import Fabric, namespaces, told_to
from gridlease_agent.network.outside import HOST, Outside, addresses
from gridlease_agent.network.platform import Platform
from gridlease_agent.runtimes.spec import Network

_LOG = logging.getLogger(__name__)
_FOLDER = "/run/netns"
_LINK = re.compile(r"\bt(\d+)(?:@|:)")
_CLASSES = {
    NetworkClass.CRITICAL: Class.CRITICAL,
    NetworkClass.STANDARD: Class.STANDARD,
    NetworkClass.BULK: Class.BULK,
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way out of the node. ``name``: ``host`` (through the host's own routes), or an interface
    given to tasks whole; then with its ``address`` (with prefix) and its ``gateway``."""

    name: str
    rate_mbps: int
    address: str = ""
    gateway: str = ""


def ways(text: str) -> tuple[Way, ...]:
    """``name:mbps[:address/prefix:gateway],…``: GRIDLEASE_UPLINKS.

    Raises:
        Invalid: UPLINKS_INVALID.
    """
    found = []
    for words in filter(None, (part.strip() for part in text.split(","))):
        name, *rest = words.split(":")
        if not name or not rest or not rest[0].isdecimal() or len(rest) not in (1, 3):
            raise Invalid(
                f"{words!r} is no uplink.",
                reason="UPLINKS_INVALID",
                field="GRIDLEASE_UPLINKS",
                remedy="Write host:1000, or eth1:10000:203.0.113.9/24:203.0.113.1.",
            )
        found.append(Way(name, int(rest[0]), *rest[1:]))
    return tuple(found)


class TaskNetworks:
    """Gives tasks their networks and takes them away. Not for two threads at once."""

    def __init__(
        self,
        state: Path,
        out: Sequence[Way] = (),
        platform: Platform | None = None,
        outside: str = "",
    ) -> None:
        """Changes nothing yet.

        Args:
            state: the node's folder, after which names are made.
            out: the ways out; none = tasks reach their gangs on this node and nobody else.
            platform: whose addresses no grant opens.
            outside: the namespace that is the host's; "" = the host's own.

        Raises:
            Precondition: NO_IPROUTE2.
        """
        mark = hashlib.sha256(str(state.absolute()).encode()).hexdigest()[:6]
        self._mark = f"gl{mark}"
        self.fabric_name = f"{self._mark}-f"
        self._out = tuple(out)
        self._outside = Outside(self._mark, self.fabric_name, outside)
        self._platform = platform or Platform(state)
        self._filters = shutil.which("nft") is not None
        self._networks: dict[str, Network] = {}
        self._fabric = Fabric(self.fabric_name, [self._outside.uplink(way) for way in self._out])
        self._open = False

    def unenforced(self) -> tuple[str, ...]:
        """What a task's network cannot be here, in words."""
        if not self._filters:
            return ("network: no nft: tasks reach their gangs on this node and nobody else",)
        if not self._out:
            return ("network: no uplink is set: tasks reach their gangs on this node only",)
        return ()

    def adopt(self, kept: Mapping[str, Network]) -> None:
        """At the start: leases whose networks stay; all others of ours are removed."""
        names = namespaces()
        if self.fabric_name not in names:
            self._sweep(names, set())
            return
        alive = {
            lease_id: network
            for lease_id, network in kept.items()
            if f"{self._mark}-{network.slot}" in names
        }
        self._ensure()
        self._networks = dict(alive)
        for lease_id, network in alive.items():
            self._fabric.adopt(self._traffic(lease_id, network))
        slots = {network.slot for network in alive.values()}
        listing = told_to(["ip", "-n", self.fabric_name, "-o", "link"])
        for slot in {int(found) for found in _LINK.findall(listing)} - slots:
            self._fabric.adopt(Traffic(f"orphan {slot}", slot))
            self._fabric.release(f"orphan {slot}")
            _LOG.warning("an orphan link was removed", extra={"slot": slot})
        self._sweep(names, slots)
        self._filter()

    def join(self, lease_id: str, network: Network) -> Network:
        """The network, made: with the namespace that the sandbox joins and the link to cut.

        Raises:
            Precondition: NO_UPLINK, NO_PACKET_FILTER, NETWORK_SLOT.
            Invalid: EGRESS_ADDRESS.
            Unreachable: NETWORK_REFUSED.
        """
        traffic = self._checked(lease_id, network)
        self._ensure()
        namespace = f"{self._mark}-{network.slot}"
        made = dataclasses.replace(
            network,
            namespace=f"{_FOLDER}/{namespace}",
            link=(f"{_FOLDER}/{self.fabric_name}", traffic.interface),
        )
        self._remove_namespace(namespace)
        try:
            told_to(["ip", "netns", "add", namespace])
            self._fabric.admit(traffic, namespace)
            self._networks[lease_id] = made
            self._fabric.join(self._gang(network.gang))
            self._filter()
        except Unreachable:
            self._fabric.adopt(traffic)  # whatever there is of it by now
            self.leave(lease_id)
            self._remove_namespace(namespace)
            raise
        return made

    def leave(self, lease_id: str) -> None:
        """Remove everything of a task's network; of one unknown here nothing."""
        network = self._networks.pop(lease_id, None)
        self._fabric.release(lease_id)
        if network is None:
            return
        self._filter()
        self._remove_namespace(f"{self._mark}-{network.slot}")

    def sent(self) -> dict[str, int]:
        """Bytes that each task has sent since its network was made: lease -> bytes."""
        if not self._networks:
            return {}
        listing = json.loads(told_to(["ip", "-n", self.fabric_name, "-j", "-s", "link"]) or "[]")
        got = {row.get("ifname"): row["stats64"]["rx"]["bytes"] for row in listing}
        return {
            lease_id: int(got[f"t{network.slot}"])
            for lease_id, network in self._networks.items()
            if f"t{network.slot}" in got
        }

    def told(self) -> str:
        """Its ways out, in words."""
        return ", ".join(f"{way.name} {way.rate_mbps} Mbit/s" for way in self._out) or "none"

    def leases(self) -> frozenset[str]:
        """Those that have a network."""
        return frozenset(self._networks)

    def peers(self, lease_id: str) -> dict[str, str]:
        """Its gang's members on this node: index -> address, itself among them."""
        network = self._networks[lease_id]
        members = [self._networks[each] for each in self._gang(network.gang)] or [network]
        return {str(each.index): Traffic("", each.slot).address for each in members}

    def gang(self, lease_id: str) -> list[str]:
        """The leases that reach each other with this one, itself among them."""
        return self._gang(self._networks[lease_id].gang) or [lease_id]

    def path_changed(self, name: str, *, works: bool) -> None:
        """A way out is known to be dead beyond its own link, or is back."""
        self._fabric.path_changed(self._outside.inside(name), works=works)

    def close(self) -> None:
        """Remove every namespace and link of ours; tasks on them lose their network."""
        self._networks = {}
        self._sweep(namespaces(), set())
        self._remove_namespace(self.fabric_name)
        self._outside.close()
        self._open = False

    # -- inside ---------------------------------------------------------------------------------

    def _checked(self, lease_id: str, network: Network) -> Traffic:
        grant = network.grant
        held = {one.slot for key, one in self._networks.items() if key != lease_id}
        if not 0 <= network.slot <= MAX_SLOT or network.slot in held:
            raise Precondition(
                "No address is left for another task on this node.",
                reason="NETWORK_SLOT",
                field="network",
            )
        if grant.egress in (Egress.LISTED, Egress.PUBLIC):
            if not self._filters:
                raise Precondition(
                    "This node has no packet filter, so its tasks may call nobody outside.",
                    reason="NO_PACKET_FILTER",
                    field="network.egress",
                    remedy="Install it on the node: apt-get install -y nftables.",
                )
            if not self._out:
                raise Precondition(
                    "This node has no uplink for tasks.",
                    reason="NO_UPLINK",
                    field="network.egress",
                    remedy="Set GRIDLEASE_UPLINKS=host:1000 on the node, or choose another node.",
                )
        return self._traffic(lease_id, network)

    def _traffic(self, lease_id: str, network: Network) -> Traffic:
        """Its promise; the chosen path's uplink first, then the others."""
        grant = network.grant
        names = [way.name for way in self._out]
        first = [name for name in grant.path if name in names]
        paths = (*first, *(name for name in names if name not in first))
        return Traffic(
            lease_id,
            network.slot,
            _CLASSES[grant.network_class],
            grant.guaranteed_mbps,
            egress.reaches(grant),
            tuple(self._outside.inside(name) for name in paths),
        )

    def _gang(self, gang: str) -> list[str]:
        return [key for key, one in self._networks.items() if gang and one.gang == gang]

    def _ensure(self) -> None:
        if self._open:
            return
        fresh = self.fabric_name not in namespaces()
        if fresh:
            told_to(["ip", "netns", "add", self.fabric_name])
        for way in self._out:
            self._outside.connect(way)
        if fresh:
            self._fabric.open()
            told_to(["ip", "-n", self.fabric_name, "link", "set", "lo", "up"])
        self._open = True

    def _filter(self) -> None:
        if not self._filters:
            return
        doors = [
            Door(
                f"t{network.slot}",
                network.grant,
                tuple(
                    address
                    for address in self._addresses(network.gang)
                    if address != Traffic("", network.slot).address
                ),
            )
            for network in self._networks.values()
        ]
        host = addresses(self._outside.name)
        inside = [self._outside.inside(way.name) for way in self._out]
        lines = egress.filter_lines(doors, inside, (*host, *self._platform.addresses()))
        told_to(["ip", "netns", "exec", self.fabric_name, "nft", "-f", "-"], lines)

    def _addresses(self, gang: str) -> list[str]:
        return [Traffic("", self._networks[each].slot).address for each in self._gang(gang)]

    def _sweep(self, names: Sequence[str], slots: set[int]) -> None:
        keep = {f"{self._mark}-{slot}" for slot in slots} | {self.fabric_name}
        for name in names:
            if name.startswith(f"{self._mark}-") and name not in keep:
                self._remove_namespace(name)
                _LOG.warning("an orphan namespace was removed", extra={"namespace": name})

    @staticmethod
    def _remove_namespace(name: str) -> None:
        with contextlib.suppress(Unreachable):
            if name in namespaces():
                told_to(["ip", "netns", "del", name])


__all__ = ["HOST", "TaskNetworks", "Way", "ways"]
