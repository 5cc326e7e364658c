"""The one question that a node asks the gateway itself; also as a process of its own.

``python -m gridlease_agent.adapters.enrolling``: a JSON list of the question on standard input,
the answer or the trouble on standard output. A core that has no transport of gRPC's asks so, and
keeps nothing of it in its memory: neither that transport nor the gateway's whole wire.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from gridlease_kernel.faults import Fault, Unreachable

from gridlease_agent import light_grpc
from gridlease_agent.executor import trouble

if TYPE_CHECKING:
    from gridlease.gateway.v1.gateway_pb2_grpc import FleetServiceAsyncStub

_TIMEOUT_S = 6.0
_PROCESS_S = 15.0


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What the gateway gives for a token."""

    node_id: str
    nats_url: str
    subject_prefix: str
    credential_jwt: str


async def enrol(door: str, token: str, public_key: str) -> Enrolled:
    """Trade the token at the gateway, in this process or, where that cannot, in another.

    Raises:
        Fault: the gateway's refusal; Unreachable where it does not answer.
    """
    if not light_grpc.is_left_out():
        return await _ask(door, token, public_key)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    question = json.dumps([door, token, public_key]).encode()
    try:
        said, _ = await asyncio.wait_for(process.communicate(question), _PROCESS_S)
    except TimeoutError as slow:
        process.kill()
        raise _away(door) from slow
    answer: list[Any] = json.loads(said) if said else ["bug", "it ended without a word"]
    if answer[0] != "ok":
        raise trouble.heard(answer)
    return Enrolled(**answer[1])


async def _ask(door: str, token: str, public_key: str) -> Enrolled:
    import grpc.aio  # noqa: PLC0415 - a core that only passes by has no use for it
    from gridlease.gateway.v1 import gateway_pb2, gateway_pb2_grpc  # noqa: PLC0415
    from gridlease_mesh.status import fault_from_error  # noqa: PLC0415

    request = gateway_pb2.EnrolNodeRequest(token=token, public_key=public_key)
    try:
        async with grpc.aio.insecure_channel(door) as channel:
            stub = cast("FleetServiceAsyncStub", gateway_pb2_grpc.FleetServiceStub(channel))
            answer = await stub.EnrolNode(request, timeout=_TIMEOUT_S, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        fault = fault_from_error(error)
        late = fault.reason == "DEADLINE_EXCEEDED"
        raise (_away(door) if late or isinstance(fault, Unreachable) else fault) from error
    return Enrolled(answer.node_id, answer.nats_url, answer.subject_prefix, answer.credential_jwt)


def _away(door: str) -> Unreachable:
    return Unreachable(
        f"The gateway at {door} does not answer.",
        reason="GATEWAY_UNREACHABLE",
        field="--join",
        remedy="Check the address and that the platform runs, then start again.",
    )


def main() -> None:
    """One question, one answer."""
    try:
        found = asyncio.run(_ask(*json.load(sys.stdin)))
    except Fault as fault:
        answer = trouble.told(fault)
    else:
        answer = ["ok", asdict(found)]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
