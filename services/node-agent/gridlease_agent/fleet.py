"""Many emulated nodes in one process, each with its own key, spool and connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from gridlease_kernel.faults import Precondition

from gridlease_agent.adapters import enrolment
from gridlease_agent.bootstrap import Node, emulated_body
from gridlease_agent.settings import Flags, Settings

KINDS = ("h100", "orin", "tpu", "fpga")
_AT_ONCE = 8


def _tokens(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text("utf-8").split()
    except OSError as trouble:
        raise Precondition(
            f"The tokens file {path} cannot be read: {trouble.strerror}.",
            reason="TOKENS_UNREADABLE",
            field="--tokens-file",
            remedy="Write one token a line: gridlease nodes add.",
        ) from trouble


async def nodes(flags: Flags, settings: Settings) -> list[Node]:
    """All nodes of the fleet; those that have not joined do so, a few at a time.

    Raises:
        Fault: a refusal, or too few tokens.
    """
    tokens = _tokens(flags.tokens_file)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(index: int) -> Node:
        state = flags.state / f"{index:03d}"
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        credential = enrolment.load(state)
        if credential is None:
            if index >= len(tokens):
                raise Precondition(
                    f"There are {len(tokens)} tokens for {flags.fleet} nodes.",
                    reason="TOO_FEW_TOKENS",
                    field="--tokens-file",
                    remedy="Make one for each node: gridlease nodes add.",
                )
            async with turns:
                credential = await enrolment.join(state, flags.join, tokens[index])
        body = emulated_body(KINDS[index % len(KINDS)], index)
        return Node(state, flags.environments, credential, body, settings, site=flags.site)

    made: list[Awaitable[Node]] = [one(index) for index in range(flags.fleet)]
    return list(await asyncio.gather(*made))


async def run(members: list[Node], when_ready: Callable[[], None]) -> None:
    """Run them all until cancelled; tell once when each serves."""
    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(member.run())
        for member in members:
            await member.ready.wait()
        when_ready()
