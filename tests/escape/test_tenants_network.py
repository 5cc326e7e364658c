"""Two tenants' sandboxes on one fabric: both directions, the host, the platform; real packets."""

from __future__ import annotations

import json
import socket
import tomllib
from collections.abc import Collection
from pathlib import Path

import pytest
from gridlease_agent import shim
from gridlease_agent.domain.traffic import Class, Traffic
from gridlease_agent.runtimes.choose import Runtime
from gridlease_agent.sandbox import Sandboxes

from tests.escape.probes import MEANINGS
from tests.escape.world import World, host_address
from tests.integration.network.test_fabric import _Echo
from tests.integration.network.world import SERVER, Town, ip, town

HERE = Path(__file__).parent
pytestmark = pytest.mark.root


def _attach(place: World, where: Town, traffic: Traffic) -> None:
    """Give a running sandbox its interface: its namespace gets a name that ``ip`` knows."""
    started = shim.read_json(str(place.sandboxes.folder(traffic.lease_id) / "started.json")) or {}
    namespace = f"{where.name}-{traffic.slot}"
    ip("netns", "attach", namespace, str(started["init_pid"]))
    where.tasks[traffic.lease_id] = namespace
    where.fabric.admit(traffic, namespace)


def _facts(own: Traffic, other: Traffic, tcp_port: int) -> dict[str, str | int]:
    return {
        "self": own.address, "gate": own.gateway, "other": other.address,
        "other_gate": other.gateway, "server": SERVER, "host_ip": host_address(),
        "tcp_port": tcp_port,
    }  # fmt: skip


def _flows(facts: dict[str, str | int]) -> list[list[str | int]]:
    rows = tomllib.loads((HERE / "flows.toml").read_text())["flows"]
    for row in rows:
        for name in sorted(facts, key=len, reverse=True):
            row[2] = row[2].replace(f"${name}", str(facts[name]))
        row[3] = facts[row[3][1:]] if isinstance(row[3], str) else row[3]
    return rows


def _judge(log: str, flows: list[list[str | int]]) -> list[str]:
    found = dict(json.loads(line) for line in log.splitlines() if line.startswith("["))
    wrong = []
    for name, _how, _host, _port, must in flows:
        wanted = {each for word in str(must).split("|") for each in MEANINGS.get(word, {word})}
        if found.get(name) not in wanted:
            wrong.append(f"{name}: {found.get(name)}, must be {must}")
    return wrong


def test_neither_tenant_reaches_the_other(crun_runtime: Runtime, state_folder: Path) -> None:
    place = World(Sandboxes(state_folder / "state", crun_runtime), 60.0)
    source = (HERE / "on_fabric.py").read_text()
    leases = [place.start(source, {}, slot) for slot in (7, 8)]
    try:
        with town() as where, socket.create_server(("0.0.0.0", 0)) as host, _Echo(where.server):
            traffics = [
                Traffic(lease_id, slot, Class.BULK, 0, (f"{SERVER}/32",), ("u1", "u2"))
                for slot, lease_id in enumerate(leases)
            ]
            for traffic in traffics:
                place.says(traffic.lease_id, "up")
                _attach(place, where, traffic)
            wrong = _attack_both(place, traffics, host.getsockname()[1])
    finally:
        place.close()
    assert not wrong, "\n".join(wrong)


def _attack_both(
    place: World, traffics: list[Traffic], tcp_port: int, only: Collection[str] = ()
) -> list[str]:
    """Both at the same time, so that each is served by the other while it tries."""
    plans = []
    for own, other in (traffics, traffics[::-1]):
        facts = _facts(own, other, tcp_port)
        plans.append([row for row in _flows(facts) if not only or row[0] in only])
        work = place.sandboxes.folder(own.lease_id) / "work"
        (work / "flows.json").write_text(json.dumps({"flows": plans[-1], "facts": facts}))
        (work / "go").touch()
    wrong = []
    for traffic, plan in zip(traffics, plans, strict=True):
        place.says(traffic.lease_id, "done")
        wrong += [f"slot {traffic.slot}, {line}" for line in
                  _judge(place.log(traffic.lease_id), plan)]  # fmt: skip
    return wrong


def test_two_tenants_would_reach_each_other_if_joined(
    crun_runtime: Runtime, state_folder: Path
) -> None:
    """The control: the same flows on a joined gang do arrive, so the probes can reach at all."""
    place = World(Sandboxes(state_folder / "state", crun_runtime), 60.0)
    source = (HERE / "on_fabric.py").read_text()
    leases = [place.start(source, {}, slot) for slot in (7, 8)]
    try:
        with town() as where:
            traffics = [Traffic(lease_id, slot) for slot, lease_id in enumerate(leases)]
            for traffic in traffics:
                place.says(traffic.lease_id, "up")
                _attach(place, where, traffic)
            where.fabric.join(leases)
            reached = ("other_tenant_udp", "other_tenant_tcp", "other_tenant_large")
            wrong = _attack_both(place, traffics, 9, reached)
    finally:
        place.close()
    for slot in (0, 1):
        for name in reached:
            assert f"slot {slot}, {name}: ok, must be unreached" in wrong, wrong
