"""A lease's network from its making to its removal: counted, cut, found again, swept away."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gridlease_agent.domain.task import Egress
from gridlease_agent.domain.traffic import Traffic
from gridlease_agent.network.tasks import ways
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.sandbox import Sandboxes
from gridlease_kernel.faults import Invalid, Precondition

from tests.integration.network.street import PUBLIC, Street, granted, listed, street
from tests.integration.network.test_fabric import _Echo
from tests.integration.sandbox.conftest import crun_runtime

__all__ = ["crun_runtime"]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
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
