"""Rules of the packet filter, and the meter of what was let through: pure, without a kernel."""

from __future__ import annotations

import dataclasses
import json

import pytest
from gridlease_agent.domain import egress, meters
from gridlease_agent.domain.egress import Destination, Door
from gridlease_agent.domain.spool import Phase, Row, Spool
from gridlease_agent.domain.task import Egress, NetworkGrant
from gridlease_agent.isolate.cgroups import CgroupMode
from gridlease_agent.runtimes import limits, network
from gridlease_agent.runtimes.spec import Network, SandboxSpec
from gridlease_kernel.faults import Invalid

LISTED = NetworkGrant(egress=Egress.LISTED, egress_to=("203.0.113.7:443", "198.51.100.0/24"))


def test_destinations_are_networks_and_ports() -> None:
    assert egress.destinations(LISTED.egress_to) == (
        Destination("203.0.113.7/32", 443),
        Destination("198.51.100.0/24"),
    )
    assert egress.reaches(LISTED) == ("203.0.113.7/32", "198.51.100.0/24")
    assert egress.reaches(NetworkGrant(egress=Egress.PUBLIC)) == ("0.0.0.0/0",)
    assert egress.reaches(NetworkGrant(egress=Egress.PEERS)) == ()


@pytest.mark.parametrize(
    "words", ["2001:db8::1", "[2001:db8::1]:443", "203.0.113.7:0", "203.0.113.7:70000", "x", "1/33"]
)
def test_what_is_no_ipv4_address_is_refused(words: str) -> None:
    with pytest.raises(Invalid) as caught:
        egress.destinations([words])
    assert caught.value.reason == "EGRESS_ADDRESS"


def _chains(lines: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in map(str.strip, lines):
        if line.startswith("chain"):
            name = line.split()[1]
            found[name] = []
        elif name and line != "}":
            found[name].append(line)
    return found


def test_every_chain_ends_in_a_drop_and_never_comes_first() -> None:
    doors = [
        Door("t0", NetworkGrant(egress=Egress.PUBLIC), ("100.64.0.3",)),
        Door("t1", LISTED),
        Door("t2", NetworkGrant(egress=Egress.PEERS)),
    ]
    lines = egress.filter_lines(doors, ["uh"], ["8.8.8.8", "10.1.2.3"])
    chains = _chains(lines)
    for door in doors:
        assert chains[door.interface][-1] == "drop"
        assert f"iifname {door.interface} jump {door.interface}" in chains["forward"]
    assert chains["t0"][:2] == ["ip daddr 100.64.0.3 accept", "ip daddr @special drop"]
    assert chains["t1"][0] == "ip daddr @never drop"
    assert "ip daddr 203.0.113.7/32 tcp dport 443 accept" in chains["t1"]
    assert chains["t2"] == ["drop"]
    assert "policy drop" in chains["forward"][0]
    sets = [line for line in lines if " set " in line]
    assert all("8.8.8.8/32" in line for line in sets), "the platform is never let through"
    assert "10.0.0.0/8" in sets[1]
    assert "10.1.2.3/32" not in sets[1], "intervals do not overlap"


def _spool(**parts: object) -> Spool:
    row = Row("ls-1", (), "boot", 0, 0, Phase.STARTING, segments=((1, 0),), ready_ns=5)
    return Spool("sp", rows={"ls-1": dataclasses.replace(row, **parts)})


def test_bytes_count_for_the_segment_in_which_they_were_seen() -> None:
    spool = meters.sent(_spool(), {"ls-1": 700, "other": 9})
    assert spool.rows["ls-1"].counters == {(1, "egress"): 700}
    row = dataclasses.replace(spool.rows["ls-1"], segments=((1, 0), (2, 10)))
    later = meters.sent(spool.with_rows(row), {"ls-1": 1_000})
    assert later.rows["ls-1"].counters == {(1, "egress"): 700, (2, "egress"): 300}
    assert meters.sent(later, {"ls-1": 999}) == later, "never down"
    assert meters.sent(later, {}) == later


def test_bytes_of_a_lease_that_is_over_stay() -> None:
    for phase in (Phase.KNOWN, Phase.EXITED, Phase.CLEAN):
        assert meters.sent(_spool(phase=phase), {"ls-1": 5}).rows["ls-1"].counters == {}
    assert meters.sent(_spool(segments=()), {"ls-1": 5}).rows["ls-1"].counters == {}


def _config() -> dict[str, dict[str, object]]:
    return {
        "linux": {"resources": {"cpu": {}}, "namespaces": [{"type": "network"}]},
        "process": {"env": ["NCCL_SOCKET_IFNAME=ib0"]},
    }


def test_limits_stand_in_the_configuration() -> None:
    spec = SandboxSpec(
        "ls-1", ("true",), cpu_milli=500, cpus="2-3", own_cores=((2, 3),), core_tag=True,
        io_device="8:0", io_bytes_per_s=1 << 20,
    )  # fmt: skip
    config = _config()
    limits.apply(config, spec, CgroupMode.V2)
    resources = config["linux"]["resources"]
    row = {"major": 8, "minor": 0, "rate": 1 << 20}
    assert resources == {
        "cpu": {"shares": 512, "cpus": "2-3"},
        "blockIO": {"throttleReadBpsDevice": [row], "throttleWriteBpsDevice": [row]},
        "unified": {"memory.oom.group": "1"},
    }
    config = _config()
    limits.apply(config, SandboxSpec("ls-1", ("true",)), CgroupMode.HYBRID)
    assert config["linux"]["resources"] == {"cpu": {"shares": 1024}}
    assert limits.plan(spec) == {
        "cores": {"cpu_milli": 500, "own": [[2, 3]]}, "core_tag": True,
    }  # fmt: skip


def test_a_sandbox_joins_its_namespace_and_its_plan_is_read_back() -> None:
    made = Network(3, "t", LISTED, "job", 1, "/run/netns/x-3", ("/run/netns/x-f", "t3"))
    spec = SandboxSpec("ls-1", ("true",), network=made, devices=("rdma:mlx5_0",))
    config = _config()
    network.apply(config, spec)
    assert config["linux"]["namespaces"] == [{"type": "network", "path": "/run/netns/x-3"}]
    assert config["process"]["env"] == [
        "NCCL_SOCKET_IFNAME=ib0", "GLOO_SOCKET_IFNAME=eth0", "NCCL_IB_HCA=mlx5_0",
    ]  # fmt: skip
    plan = json.loads(json.dumps(network.plan(spec)))
    assert plan["link"] == "/run/netns/x-f/t3"
    assert network.read(plan["network"]) == made
    for none in (None, Network(3, "t", LISTED)):
        config = _config()
        network.apply(config, dataclasses.replace(spec, network=none))
        assert config == _config()
        assert network.plan(dataclasses.replace(spec, network=none)) == {}
