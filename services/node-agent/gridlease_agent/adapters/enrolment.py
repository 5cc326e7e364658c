"""Who this node is: made once with a one-time token, on disk ever after.

``credential.json`` holds the node's id and the mesh's address; ``node.creds`` the token and the
key's seed, both 0600. The seed is made here and never leaves the node.
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gridlease_kernel.faults import Precondition
from gridlease_mesh.credentials import claims_of, new_user_key, public_key_of, write_creds

from gridlease_agent.adapters.enrolling import enrol


@dataclass(frozen=True, slots=True)
class Credential:
    """How the node connects. ``creds``: whether ``node.creds`` is to be shown to the broker.

    ``door`` and ``token``: where and how it joined. The spent token is good for one thing: a
    fresh credential of the same key, for a node that was away for longer than its last one lived.
    """

    node_id: str
    nats_url: str
    subject_prefix: str
    creds: bool
    door: str = ""
    token: str = ""


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
    answer = await enrol(door, token, public_key)
    if answer.credential_jwt:
        write_creds(state / "node.creds", answer.credential_jwt, seed)
    credential = Credential(
        answer.node_id,
        answer.nats_url,
        answer.subject_prefix or "gl",
        bool(answer.credential_jwt),
        door,
        token,
    )
    _write_private(state / "credential.json", json.dumps(asdict(credential), indent=1))
    (state / "node.seed").unlink(missing_ok=True)
    return credential


class CredentialFile:
    """``node.creds``: the key that never leaves, and the token that is renewed."""

    def __init__(self, state: Path, credential: Credential) -> None:
        self._path = state / "node.creds"
        self._credential = credential

    def left(self, now: datetime.datetime) -> float:
        """The share of its life that the token has left, by this host's own clock: 1 to 0."""
        token, _ = self._read()
        claims = claims_of(token)
        if "exp" not in claims:
            return 1.0
        end, start = float(claims["exp"]), float(claims["iat"])
        return min(1.0, max(0.0, (end - now.timestamp()) / max(1.0, end - start)))

    def renew(self, token: str) -> None:
        """Keep a fresh token beside the same key."""
        _, seed = self._read()
        write_creds(self._path, token, seed)

    async def ask_the_door(self) -> None:
        """Renew at the gateway, where the mesh no longer lets the node in.

        Raises:
            Fault: a refusal, or no answer.
        """
        own = self._credential
        if not own.door or not own.token:
            raise Precondition(
                "This node does not know the gateway that it joined at.",
                reason="DOOR_UNKNOWN",
                remedy="Join again with a new token (gridlease nodes add).",
            )
        _, seed = self._read()
        answer = await enrol(own.door, own.token, public_key_of(seed))
        if answer.credential_jwt:
            self.renew(answer.credential_jwt)

    def _read(self) -> tuple[str, str]:
        lines = self._path.read_text("ascii").splitlines()
        begin = [at for at, line in enumerate(lines) if line.startswith("-----BEGIN")]
        return lines[begin[0] + 1], lines[begin[1] + 1]


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
