"""Joining by a one-time token, fleets, and failures that are expected."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from gridlease.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from gridlease_kernel.faults import Unauthenticated
from gridlease_mesh.embedded import EmbeddedNats
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_testkit.ports import free_port
from gridlease_testkit.waiting import eventually

from tests.integration.agent import centre as centres
from tests.integration.agent.agents import Agent
from tests.integration.agent.centre import Centre


class Door(gateway_pb2_grpc.FleetServiceServicer):
    """Trades tokens ``t-0``, ``t-1`` … for nodes ``n-0``, ``n-1`` …"""

    def __init__(self, broker: EmbeddedNats) -> None:
        self._broker = broker
        self.keys: dict[str, str] = {}

    async def EnrolNode(self, request: Any, context: Any) -> Any:  # noqa: N802
        if not request.token.startswith("t-"):
            raise Unauthenticated(
                "This token is spent or was never made.",
                reason="BAD_TOKEN",
                field="token",
                remedy="Ask the operator for another.",
            )
        node_id = "n-" + request.token[2:]
        self.keys[node_id] = request.public_key
        jwt = self._broker.authority.mint_node_user(node_id, request.public_key)
        return gateway_pb2.EnrolNodeResponse(
            node_id=node_id,
            nats_url=self._broker.url,
            credential_jwt=jwt,
            subject_prefix="gl",
        )


@pytest.fixture
async def door(nats: EmbeddedNats) -> AsyncIterator[tuple[str, Door]]:
    server = grpc.aio.server(interceptors=(FaultsToStatus(),))
    servicer = Door(nats)
    gateway_pb2_grpc.add_FleetServiceServicer_to_server(servicer, server)
    address = f"127.0.0.1:{free_port()}"
    server.add_insecure_port(address)
    await server.start()
    yield address, servicer
    await server.stop(1.0)


async def test_a_token_is_needed_once(
    centre: Centre, door: tuple[str, Door], state_folder: Path
) -> None:
    agent = Agent(state_folder, flags=["--join", door[0], "--token", "t-1"])
    await agent.start()
    assert agent.stop() == 0
    assert not agent.ready_file.exists()
    for name in ("credential.json", "node.creds", "spool.sqlite"):
        assert stat.S_IMODE((state_folder / name).stat().st_mode) == 0o600, name
    seed = (state_folder / "node.creds").read_text()
    assert "SU" in seed
    assert door[1].keys["n-1"].startswith("U")
    agent = Agent(state_folder)
    await agent.start()
    assert agent.stop() == 0


async def test_a_fleet_is_emulated_and_says_so(
    centre: Centre, door: tuple[str, Door], state_folder: Path
) -> None:
    tokens = state_folder / "tokens"
    tokens.write_text("t-1\nt-2\nt-3\nt-4\n")
    flags = ["--join", door[0], "--fleet", "4", "--tokens-file", str(tokens)]
    agent = Agent(state_folder, flags=flags)
    await agent.start()
    try:
        assert len(centre.inventories) == 4
        assert all(one.emulated for one in centre.inventories)
        assert {one.sandbox_runtime for one in centre.inventories} == {"noop"}
        devices = [device for one in centre.inventories for device in one.devices]
        assert all(device.emulated for device in devices)
        chips = {device.chip for device in devices}
        assert chips == {"H100-80GB", "jetson-agx-orin", "tpu-v5e", "alveo-u250"}
    finally:
        assert agent.stop() == 0


async def test_an_emulated_node_pretends_to_run(
    centre: Centre, door: tuple[str, Door], state_folder: Path
) -> None:
    flags = ["--join", door[0], "--token", "t-1", "--emulate", "h100"]
    agent = Agent(state_folder, flags=flags)
    await agent.start()
    try:
        device = centre.inventories[0].devices[0].id
        await eventually(lambda: centre.syncs and _clean(centre, device), 10)
        spec = centre.want("ls-1", ["true"], env={"GRIDLEASE_EMULATED_MS": "300"})
        spec.allocation.device_ids.append(device)
        centre.hint()
        await eventually(lambda: centre.gone("ls-1"), 20)
        ended = centre.exit("ls-1")
        assert ended is not None
        assert (ended.reason, ended.exit_code, ended.ran_ns) == ("EXITED", 0, 300_000_000)
        assert centre.charged_ns("ls-1") == 300_000_000
    finally:
        assert agent.stop() == 0


def _clean(centre: Centre, device: str) -> bool:
    newest = {one.device_id: one.state for one in centre.syncs[-1].devices}
    return newest.get(device) == 1


def fail(state: Path, *flags: str) -> str:
    """What an agent that cannot start says; its exit code is 2."""
    done = subprocess.run(
        [sys.executable, "-m", "gridlease_agent", "--state", str(state), *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_host_that_has_not_joined_is_told_how(state_folder: Path) -> None:
    assert "gridlease nodes add" in fail(state_folder)


def test_a_door_that_is_shut_is_named(state_folder: Path) -> None:
    said = fail(state_folder, "--join", f"127.0.0.1:{free_port()}", "--token", "t-1")
    assert "does not answer" in said


def test_a_state_folder_that_is_a_file_is_named(state_folder: Path) -> None:
    (state_folder / "file").write_text("")
    assert "--state" in fail(state_folder / "file")


def test_an_unknown_kind_is_told(state_folder: Path) -> None:
    assert "h100" in fail(state_folder, "--emulate", "abacus")


async def test_a_bad_token_is_told(door: tuple[str, Door], state_folder: Path) -> None:
    said = await asyncio.to_thread(fail, state_folder, "--join", door[0], "--token", "x")
    assert "Ask the operator for another" in said


async def test_two_agents_never_share_a_folder(
    nats: EmbeddedNats, centre: Centre, state_folder: Path
) -> None:
    centres.enrol(nats, state_folder)
    agent = Agent(state_folder)
    await agent.start()
    with contextlib.ExitStack() as after:
        after.callback(agent.stop)
        assert "Another agent" in await asyncio.to_thread(fail, state_folder)


async def test_a_wrong_site_is_told(nats: EmbeddedNats, centre: Centre, state_folder: Path) -> None:
    centres.enrol(nats, state_folder)
    said = await asyncio.to_thread(fail, state_folder, "--site", "factory")
    assert "sites/local" in said
