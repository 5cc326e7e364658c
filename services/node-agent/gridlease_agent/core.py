"""The agent's core: joins, connects, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal

from gridlease_kernel.faults import Precondition
from gridlease_mesh.lifetime import ready

from gridlease_agent import fleet
from gridlease_agent.adapters import enrolment
from gridlease_agent.bootstrap import Node, core_body, emulated_body, real_body
from gridlease_agent.settings import Flags, Settings

_LOG = logging.getLogger(__name__)


async def _credential(flags: Flags, settings: Settings) -> enrolment.Credential:
    credential = enrolment.load(flags.state)
    if credential is not None:
        return credential
    token = flags.token or settings.node_token
    if not flags.join or not token:
        raise Precondition(
            "This host has not joined yet.",
            reason="NOT_JOINED",
            field="--token",
            remedy="Ask the operator for a token (gridlease nodes add), then start with "
            "--join HOST:PORT --token TOKEN.",
        )
    credential = await enrolment.join(flags.state, flags.join, token)
    _LOG.info("the node has joined", extra={"node": credential.node_id})
    return credential


async def _members(flags: Flags, settings: Settings) -> list[Node]:
    if flags.fleet:
        return await fleet.nodes(flags, settings)
    if flags.emulate:
        body = emulated_body(flags.emulate, 0)
    else:
        look = core_body if settings.executor else real_body
        body = await asyncio.to_thread(look, flags.state, settings)
    credential = await _credential(flags, settings)
    return [Node(flags.state, flags.environments, credential, body, settings, site=flags.site)]


async def serve(flags: Flags, settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(4, "blocking"))
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.ExitStack() as stack:

        def when_ready() -> None:
            if settings.ready_fd >= 0:
                os.write(settings.ready_fd, b"ready\n")
                os.close(settings.ready_fd)
            stack.enter_context(ready(settings.ready_file))

        try:
            await fleet.run(await _members(flags, settings), when_ready)
        except asyncio.CancelledError:
            _LOG.info("the agent stops; tasks go on")


def run(flags: Flags, settings: Settings) -> None:
    """The core's whole life, on a loop of its own."""
    asyncio.run(serve(flags, settings))
