"""Who this node is: made once with a one-time token, on disk ever after.

``credential.json`` holds the node's id and the mesh's address; ``node.creds`` the token and the
key's seed, both 0600. The seed is made here and never leaves the node.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc.aio
from gridlease.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from gridlease_kernel.faults import Fault, Precondition, Unreachable
from gridlease_mesh.credentials import new_user_key, write_creds
from gridlease_mesh.status import fault_from_error

if TYPE_CHECKING:
    from gridlease.gateway.v1.gateway_pb2_grpc import FleetServiceAsyncStub

_TIMEOUT_S = 6.0


@dataclass(frozen=True, slots=True)
class Credential:
    """How the node connects. ``creds``: whether ``node.creds`` is to be shown to the broker."""

    node_id: str
    nats_url: str
    subject_prefix: str
    creds: bool


def load(state: Path) -> Credential | None:
    """The node's credential, None before it has joined.

    Raises:
        Precondition: CREDENTIAL_DAMAGED.
    """
    path = state / "credential.json"
    try:
        return Credential(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as trouble:
        raise Precondition(
            f"{path} is damaged ({trouble}).",
            reason="CREDENTIAL_DAMAGED",
            remedy="Remove it and join again with a new token (gridlease nodes add).",
        ) from trouble


async def join(state: Path, door: str, token: str) -> Credential:
    """Make a key, trade the token for a credential at the gateway, and keep both.

    A token that was spent in an answer that got lost is spent: the operator makes another.

    Raises:
        Fault: the gateway's refusal; Unreachable where it does not answer.
    """
    seed, public_key = _own_key(state / "node.seed")
    request = gateway_pb2.EnrolNodeRequest(token=token, public_key=public_key)
    try:
        async with grpc.aio.insecure_channel(door) as channel:
            stub = cast("FleetServiceAsyncStub", gateway_pb2_grpc.FleetServiceStub(channel))
            answer = await stub.EnrolNode(request, timeout=_TIMEOUT_S, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        raise _explained(door, fault_from_error(error)) from error
    if answer.credential_jwt:
        write_creds(state / "node.creds", answer.credential_jwt, seed)
    credential = Credential(
        answer.node_id, answer.nats_url, answer.subject_prefix or "gl", bool(answer.credential_jwt)
    )
    _write_private(state / "credential.json", json.dumps(asdict(credential), indent=1))
    (state / "node.seed").unlink(missing_ok=True)
    return credential


def _explained(door: str, fault: Fault) -> Fault:
    if isinstance(fault, Unreachable) or fault.reason == "DEADLINE_EXCEEDED":
        return Unreachable(
            f"The gateway at {door} does not answer.",
            reason="GATEWAY_UNREACHABLE",
            field="--join",
            remedy="Check the address and that the platform runs, then start again.",
        )
    return fault


def _own_key(path: Path) -> tuple[str, str]:
    """The same key for each try, so that a lost answer may be asked for again."""
    try:
        seed, _, public_key = path.read_text("ascii").strip().partition(" ")
    except FileNotFoundError:
        seed, public_key = new_user_key()
        _write_private(path, f"{seed} {public_key}")
    return seed, public_key


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
