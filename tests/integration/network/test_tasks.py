"""A lease's network from its making to its removal: counted, cut, found again, swept away."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_agent.domain.task import Egress, NetworkClass, NetworkGrant
from gridlease_agent.domain.traffic import Traffic
from gridlease_agent.network.tasks import TaskNetworks, ways
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.runtimes.spec import Network
from gridlease_agent.sandbox import Sandboxes
from gridlease_kernel.faults import Invalid, Precondition, Unreachable
from gridlease_testkit.waiting import eventually_sync

from tests.integration.network.street import PUBLIC, Street, granted, listed, street
from tests.integration.network.test_fabric import _Echo
from tests.integration.network.world import ip
from tests.integration.sandbox.conftest import crun_runtime

__all__ = ["crun_runtime"]
pytestmark = [
    pytest.mark.root,
]
_SEND = f"""
import signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(100):
    s.sendto(bytes(1000), ("{PUBLIC}", 9))
print("sent", flush=True)
signal.pause()
"""
_WAIT = "import signal; print('up', flush=True); signal.pause()"
_FLOOD = f"""
import contextlib, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("up", flush=True)
while True:
    with contextlib.suppress(OSError):
        s.sendto(b"x", ("{PUBLIC}", 9))
"""


@pytest.fixture
def place(crun_runtime: Runtime, state_folder: Path) -> Iterator[Street]:
    with street(state_folder / "state", crun_runtime) as made:
        yield made


def test_bytes_are_counted_until_the_network_is_removed(place: Street) -> None:
    lease_id = place.start(_SEND, 0, granted(Egress.PUBLIC))
    place.says(lease_id, "sent")
    # 1,000 bytes of payload, 28 of UDP and IP, 14 of Ethernet; not a byte of anybody else.
    assert place.sandboxes.egress_bytes() == {lease_id: 100 * 1_042}
    place.sandboxes.kill(lease_id)
    place.ended(lease_id)
    assert place.sandboxes.egress_bytes() == {lease_id: 100 * 1_042}, "after its end, too"
    place.sandboxes.remove(lease_id)
    assert place.sandboxes.egress_bytes() == {}
    assert _links(place) == []


def _links(place: Street) -> list[str]:
    listing = subprocess.run(
        ["ip", "-n", place.networks.fabric_name, "-o", "link"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [words for line in listing.splitlines() if (words := line.split()[1])[0] == "t"]


def test_at_the_deadline_the_link_goes_down(place: Street) -> None:
    lease_id = place.start(_FLOOD, 0, granted(Egress.PUBLIC), span_ms=1_500)
    place.says(lease_id, "up")
    assert place.ended(lease_id).record.reason == "DEADLINE"
    shown = subprocess.run(
        ["ip", "-n", place.networks.fabric_name, "-br", "link", "show", "t0"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert ",UP" not in shown


def test_a_new_agent_finds_networks_and_removes_orphans(place: Street) -> None:
    lease_id = place.start(_SEND, 0, granted(Egress.PUBLIC))
    gone = place.start(_WAIT, 1, granted(Egress.PUBLIC))
    place.says(lease_id, "sent")
    place.says(gone, "up")
    place.sandboxes.kill(gone)
    place.ended(gone)
    # As after a crash between the network and the plan: nobody knows of it any more.
    (place.sandboxes.folder(gone) / "spec.json").unlink()
    again = place.again()
    assert again.sandboxes.egress_bytes() == {lease_id: 100 * 1_042}
    assert [name.partition("@")[0] for name in _links(again)] == ["t0"]
    with _Echo(place.internet):
        other = again.start(_SEND, 2, listed(f"{PUBLIC}:9"))
        again.says(other, "sent")
    assert set(again.sandboxes.egress_bytes()) == {lease_id, other}


def test_a_node_says_what_it_cannot_give(
    place: Street, crun_runtime: Runtime, state_folder: Path
) -> None:
    with pytest.raises(Invalid) as caught:
        place.start(_WAIT, 0, listed("2001:db8::1"))
    assert caught.value.reason == "EGRESS_ADDRESS"
    assert place.networks.leases() == frozenset()
    bare = Sandboxes(state_folder / "bare", crun_runtime)
    place.sandboxes = bare
    with pytest.raises(Precondition) as refused:
        place.start(_WAIT, 0, granted(Egress.PEERS))
    assert refused.value.reason == "NO_TASK_NETWORK"


def test_uplinks_are_read() -> None:
    host, own = ways("host:1000, eth1:10000:203.0.113.9/24:203.0.113.1")
    assert (host.name, host.rate_mbps, host.address) == ("host", 1_000, "")
    assert (own.address, own.gateway) == ("203.0.113.9/24", "203.0.113.1")
    for wrong in ("host", "host:fast", "eth1:10:203.0.113.9/24"):
        with pytest.raises(Invalid):
            ways(wrong)
    assert Traffic("", 0).address == "100.64.0.1"


def test_the_leases_path_and_promise_are_the_kernels(place: Street, state_folder: Path) -> None:
    for at, name in enumerate(("pa", "pb"), 1):
        ip("-n", place.host, "link", "add", name, "type", "veth", "peer", "name", f"far{name}",
           "netns", place.internet)  # fmt: skip
        ip("-n", place.internet, "addr", "add", f"198.19.{at}.1/31", "dev", f"far{name}")
        ip("-n", place.internet, "link", "set", f"far{name}", "up")
    out = ways("pa:200:198.19.1.0/31:198.19.1.1, pb:200:198.19.2.0/31:198.19.2.1")
    node = TaskNetworks(state_folder / "two", out, outside=place.host)
    grant = NetworkGrant(50, NetworkClass.CRITICAL, path=("pb",), egress=Egress.PUBLIC)
    try:
        made = node.join("ls-1", Network(0, "t", grant))
        assert made.link[1] == "t0"
        asked = ("-n", node.fabric_name, "route", "get", PUBLIC, "from", "100.64.0.1", "iif", "t0")
        assert "dev pb" in _said("ip", *asked)
        for name in ("pa", "pb"):
            shown = _said("tc", "-n", node.fabric_name, "class", "show", "dev", name)
            assert "class htb 1:10 parent 1:1 leaf 10: prio 0 rate 52500Kbit ceil 200Mbit" in shown
        ip("-n", place.internet, "link", "set", "farpb", "down")
        eventually_sync(lambda: "dev pa" in _said("ip", *asked), 5)
        node.leave("ls-1")
        assert "1:10 " not in _said("tc", "-n", node.fabric_name, "class", "show", "dev", "pa")
        assert "1000" not in _said("ip", "-n", node.fabric_name, "rule")
    finally:
        node.close()


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout


def test_a_network_that_fails_half_way_leaves_nothing(place: Street) -> None:
    node = place.networks
    node.join("ls-0", Network(0, "t", granted(Egress.PEERS), "job"))
    with pytest.raises(Precondition) as caught:
        node.join("ls-1", Network(0, "t", granted(Egress.PEERS), "job"))
    assert caught.value.reason == "NETWORK_SLOT", "a slot is one lease's"
    ip("-n", node.fabric_name, "link", "add", "t1", "type", "veth", "peer", "name", "x")
    with pytest.raises(Unreachable):
        node.join("ls-1", Network(1, "t", granted(Egress.PEERS), "job"))
    assert node.leases() == {"ls-0"}
    assert [each[:2] for each in _links(place)] == ["t0"]
    node.join("ls-1", Network(1, "t", granted(Egress.PEERS), "job", 1))
    assert node.peers("ls-1") == {"0": "100.64.0.1", "1": "100.64.0.3"}
