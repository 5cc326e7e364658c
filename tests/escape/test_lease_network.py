"""Leases' own networks, as the node makes them: six tenants' tasks, all trying at the same time.

Three policies, two members of a gang each; every task tries 31 flows: 186 probes, both ways
between tenants, to the host, the platform, private networks and a cloud's metadata.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest
from gridlease_agent.domain.task import Egress
from gridlease_agent.domain.traffic import Traffic
from gridlease_agent.runtimes.choose import Runtime

from tests.escape.probes import MEANINGS
from tests.escape.world import host_address
from tests.integration.network.street import (
    ELSEWHERE,
    METADATA,
    PRIVATE,
    PUBLIC,
    Street,
    granted,
    listed,
    street,
)
from tests.integration.network.test_fabric import _Echo, _reached

HERE = Path(__file__).parent
SOURCE = (HERE / "on_fabric.py").read_text()
GRANTS = (granted(Egress.PUBLIC), listed(f"{PUBLIC}:7007"), granted(Egress.PEERS))
pytestmark = pytest.mark.root


def _plan(policy: int, member: int, tcp_port: int) -> dict[str, Any]:
    slot = 2 * policy + member
    facts: dict[str, str | int] = {
        "self": Traffic("", slot).address,
        "peer": Traffic("", slot ^ 1).address,
        "other": Traffic("", (slot + 2) % 6).address,
        "gate": Traffic("", slot).gateway,
        "host_ip": host_address(),
        "tcp_port": tcp_port,
    }
    rows = tomllib.loads((HERE / "egress.toml").read_text())["flows"]
    for row in rows:
        for name in sorted(facts, key=len, reverse=True):
            row[2] = row[2].replace(f"${name}", str(facts[name]))
        row[3] = facts[row[3][1:]] if isinstance(row[3], str) else row[3]
        row[4] = row[4][policy]
    return {"flows": rows, "facts": facts}


def _wrong(log: str, flows: list[list[Any]]) -> list[str]:
    found = dict(json.loads(line) for line in log.splitlines() if line.startswith("["))
    return [
        f"{name}: {found.get(name)}, must be {must}"
        for name, _how, _host, _port, must in flows
        if found.get(name)
        not in {each for word in must.split("|") for each in MEANINGS.get(word, {word})}
    ]


def _attack(place: Street, tcp_port: int) -> tuple[int, list[str]]:
    leases = [
        place.start(SOURCE, slot, GRANTS[slot // 2], gang=f"job{slot // 2}") for slot in range(6)
    ]
    plans = [_plan(slot // 2, slot % 2, tcp_port) for slot in range(6)]
    for lease_id in leases:
        place.says(lease_id, "up")
    for lease_id, plan in zip(leases, plans, strict=True):
        work = place.sandboxes.folder(lease_id) / "work"
        (work / "flows.json").write_text(json.dumps(plan))
        (work / "go").touch()
    wrong = []
    for slot, (lease_id, plan) in enumerate(zip(leases, plans, strict=True)):
        place.says(lease_id, "done")
        wrong += [f"slot {slot}, {line}" for line in _wrong(place.log(lease_id), plan["flows"])]
    return sum(len(plan["flows"]) for plan in plans), wrong


def test_no_lease_calls_whom_it_may_not(crun_runtime: Runtime, state_folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(street(state_folder / "state", crun_runtime))
        host = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        for namespace in (place.internet, place.host):
            stack.enter_context(_Echo(namespace))
        # The control: the host itself does reach all of them, so they are there to be reached.
        for address in (PUBLIC, ELSEWHERE, PRIVATE, METADATA):
            assert _reached(place.host, address)
        probes, wrong = _attack(place, host.getsockname()[1])
    assert not wrong, "\n".join(wrong)
    assert probes >= 150
