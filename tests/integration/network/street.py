"""A host's namespace with a way to an internet of one server; nothing of the real host is used."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gridlease_agent.domain.task import Egress, NetworkClass, NetworkGrant
from gridlease_agent.isolate.cores import CoreTable, layout
from gridlease_agent.isolate.ground import Ground
from gridlease_agent.network.platform import Platform
from gridlease_agent.network.tasks import TaskNetworks, Way, ways
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.spec import Network, SandboxSpec, uid_base
from gridlease_agent.sandbox import Absent, Deadline, Exited, Sandboxes
from gridlease_testkit.waiting import eventually_sync

from tests.integration.network.world import ip

PUBLIC, ELSEWHERE = "8.8.4.4", "9.9.9.9"  # of the server; the second is the platform's, too
PRIVATE, METADATA = "10.7.7.7", "169.254.169.254"
HOST_OWN = "5.5.5.0"  # the host's own address, as public as any
PYTHON = "/usr/bin/python3"


@dataclass
class Street:
    """``host`` and ``internet``: namespaces' names."""

    host: str
    internet: str
    state: Path
    runtime: Runtime
    networks: TaskNetworks
    sandboxes: Sandboxes
    count: int = 0

    def start(
        self, source: str, slot: int, grant: NetworkGrant | None, gang: str = "", **parts: int
    ) -> str:
        """A lease whose task is a Python script."""
        self.count += 1
        lease_id = f"ls-street-{os.getpid()}-{self.count}"
        network = Network(slot, f"tenant{slot}", grant, gang, self.count) if grant else None
        (self.sandboxes.prepare(lease_id) / "main.py").write_text(source)
        spec = SandboxSpec(
            lease_id,
            (PYTHON, "-I", "-S", "main.py"),
            network=network,
            uid_base=uid_base(31_000 + slot),
        )
        span_ms = parts.get("span_ms", 60_000)
        self.sandboxes.start(lease_id, spec, Deadline.after(span_ms, 0))
        return lease_id

    def log(self, lease_id: str) -> str:
        path = self.sandboxes.folder(lease_id) / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def says(self, lease_id: str, text: str) -> None:
        eventually_sync(lambda: text in self.log(lease_id), 30)

    def ended(self, lease_id: str) -> Exited:
        return eventually_sync(
            lambda: isinstance(state := self.sandboxes.inspect(lease_id), Exited) and state, 60
        )

    def again(self) -> Street:
        """The same node with a new agent, which takes over what the old one left."""
        made = _street(self.host, self.internet, self.state, self.runtime)
        made.count = self.count
        return made

    def close(self) -> None:
        leases = [
            each
            for each in self.sandboxes.list()
            if not isinstance(self.sandboxes.inspect(each), Absent)
        ]
        for lease_id in leases:
            self.sandboxes.kill(lease_id)
        for lease_id in leases:
            self.ended(lease_id)
        self.networks.close()


def listed(*addresses: str) -> NetworkGrant:
    return NetworkGrant(egress=Egress.LISTED, egress_to=addresses)


def granted(egress: Egress, network_class: NetworkClass = NetworkClass.STANDARD) -> NetworkGrant:
    return NetworkGrant(network_class=network_class, egress=egress)


def _street(host: str, internet: str, state: Path, runtime: Runtime) -> Street:
    out: tuple[Way, ...] = ways("host:1000")
    networks = TaskNetworks(state, out, Platform(state), outside=host)
    # The platform's address is where the node's own credential says that the mesh is.
    state.mkdir(parents=True, exist_ok=True)
    told = {"nats_url": f"nats://{ELSEWHERE}:4222", "door": "127.0.0.1:8080"}
    (state / "credential.json").write_text(json.dumps(told))
    ground = Ground(state / "leases", CoreTable(layout(), state / "leases"), networks)
    ground.adopt()
    sandboxes = Sandboxes(state, runtime, ground=ground)
    return Street(host, internet, state, runtime, networks, sandboxes)


@contextlib.contextmanager
def street(state: Path, runtime: Runtime) -> Iterator[Street]:
    """Gone at the end, with everything in it."""
    if shutil.which("nft") is None:
        pytest.skip("the packet filter's program is not here: apt-get install -y nftables")
    host, internet = f"gs{os.getpid()}h", f"gs{os.getpid()}i"
    made: Street | None = None
    try:
        for name in (host, internet):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", host, "link", "add", "pub", "type", "veth", "peer", "name", "isp", "netns",
           internet)  # fmt: skip
        ip("-n", host, "addr", "add", f"{HOST_OWN}/31", "dev", "pub")
        ip("-n", internet, "addr", "add", "5.5.5.1/31", "dev", "isp")
        for name, link in ((host, "pub"), (internet, "isp")):
            ip("-n", name, "link", "set", link, "up")
        ip("-n", host, "route", "add", "default", "via", "5.5.5.1")
        for address in (PUBLIC, ELSEWHERE, PRIVATE, METADATA):
            ip("-n", internet, "addr", "add", f"{address}/32", "dev", "lo")
        made = _street(host, internet, state, runtime)
        yield made
    finally:
        if made is not None:
            made.close()
        for name in (host, internet):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
