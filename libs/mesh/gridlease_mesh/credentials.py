"""Who may join the mesh: an operator, its accounts and its users, as signed tokens (JWT).

Pure Python: no ``nsc``, no calls to the broker. The broker trusts the operator's key and holds
the accounts' tokens, so a new user needs no reload. Seeds are files of mode 0600 in one folder;
a node's own seed never comes here: it sends its public key and gets a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys as _nkeys
from gridlease_kernel.clock import Clock, SystemClock
from gridlease_kernel.faults import Invalid, Precondition

from gridlease_mesh import subjects

NODE_TTL_S = 24 * 3600
nkeys: Any = _nkeys  # untyped
_UNLIMITED = -1
_JETSTREAM = {"mem_storage": _UNLIMITED, "disk_storage": _UNLIMITED}
_KINDS = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}


@dataclass(frozen=True, slots=True)
class Permissions:
    """The subjects that a user may publish to and subscribe to."""

    publish: Sequence[str]
    subscribe: Sequence[str]


def node_permissions(node_id: str, prefix: str = subjects.DEFAULT_PREFIX) -> Permissions:
    """What a node may do: only names that carry its own id."""
    node = subjects.check_token(node_id, "node_id")
    return Permissions(
        publish=(f"{prefix}.up.{node}.>", f"{prefix}.tel.{node}.>", f"{prefix}.back.{node}.>"),
        subscribe=(
            f"{prefix}.node.{node}.>",
            f"{prefix}.hint.{node}",
            f"{subjects.node_inbox(node)}.>",
        ),
    )


def new_user_key() -> tuple[str, str]:
    """A fresh (seed, public key) of a user; the seed stays where it was made."""
    pair = _pair(_new_seed("user"))
    return pair.seed.decode(), pair.public_key.decode()


def creds_text(token: str, seed: str) -> str:
    """The contents of a credentials file, as NATS clients read it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def write_creds(path: Path, token: str, seed: str) -> None:
    """Write or renew a credentials file, 0600, in one step."""
    _write_private(path, creds_text(token, seed))


class Authority:
    """The keys of one installation, and what it signs with them."""

    def __init__(
        self, folder: Path, *, prefix: str = subjects.DEFAULT_PREFIX, clock: Clock | None = None
    ) -> None:
        """Open the folder, or make it and its keys.

        Raises:
            Precondition: a seed there is unreadable or damaged.
        """
        self._folder = folder
        self._prefix = prefix
        self._clock = clock or SystemClock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._operator = self._key("operator", "operator")
        self._account = self._key("account", "mesh")
        self._system = self._key("account", "system")

    @property
    def account_public_key(self) -> str:
        """The account that services and nodes live in."""
        return self._public(self._account)

    @property
    def system_public_key(self) -> str:
        return self._public(self._system)

    def operator_token(self) -> str:
        """The operator's self-signed token, for the broker's configuration."""
        claims = {"type": "operator", "system_account": self.system_public_key}
        return self._sign(self._operator, self._public(self._operator), "gridlease", claims)

    def account_tokens(self) -> dict[str, str]:
        """Account tokens by public key, for the broker's memory resolver."""
        return {
            self.account_public_key: self._account_token(self._account, "mesh", _JETSTREAM),
            self.system_public_key: self._account_token(self._system, "system", {}),
        }

    def mint_service_user(self, name: str) -> Path:
        """Credentials of a service, which may do everything; the file, reused where it exists."""
        subjects.check_token(name, "name")
        path = self._folder / f"{name}.creds"
        if not path.exists():
            seed, public = new_user_key()
            write_creds(path, self._user_token(public, name, None, None), seed)
        return path

    def mint_node_user(self, node_id: str, public_nkey: str, ttl_s: int = NODE_TTL_S) -> str:
        """A token for a node's own key: valid ``ttl_s`` seconds, for its own names only.

        Raises:
            Invalid: not a node id, or not a user's public key.
        """
        _check_user_key(public_nkey)
        assert ttl_s > 0, ttl_s
        permissions = node_permissions(node_id, self._prefix)
        return self._user_token(public_nkey, f"node:{node_id}", permissions, ttl_s)

    def _user_token(
        self, public: str, name: str, permissions: Permissions | None, ttl_s: int | None
    ) -> str:
        allow = permissions
        claims: dict[str, Any] = {
            "type": "user",
            "pub": {"allow": list(allow.publish)} if allow else {},
            "sub": {"allow": list(allow.subscribe)} if allow else {},
            "subs": _UNLIMITED,
            "data": _UNLIMITED,
            "payload": _UNLIMITED,
        }
        return self._sign(self._account, public, name, claims, ttl_s)

    def _account_token(self, pair: Any, name: str, storage: dict[str, int]) -> str:
        names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        limits: dict[str, Any] = dict.fromkeys(names, _UNLIMITED)
        limits |= {"wildcards": True, **storage}
        if storage:
            limits |= {"streams": _UNLIMITED, "consumer": _UNLIMITED}
        claims = {"type": "account", "limits": limits, "default_permissions": {}}
        return self._sign(self._operator, self._public(pair), name, claims)

    def _sign(
        self,
        issuer: Any,
        subject: str,
        name: str,
        nats: dict[str, Any],
        ttl_s: int | None = None,
    ) -> str:
        """A token in NATS's form of JWT. Source: nats-io/jwt v2, algorithm ed25519-nkey."""
        now_s = int(self._clock.wall().timestamp())
        claims: dict[str, Any] = {
            "iat": now_s,
            "iss": self._public(issuer),
            "sub": subject,
            "name": name,
            "nats": {**nats, "version": 2},
        }
        if ttl_s is not None:
            claims["exp"] = now_s + ttl_s
        digest = hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).digest()
        claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = f"{_segment(head)}.{_segment(claims)}"
        return f"{body}.{_b64(issuer.sign(body.encode()))}"

    def _key(self, kind: str, name: str) -> Any:
        path = self._folder / f"{name}.seed"
        if not path.exists():
            _write_private(path, _new_seed(kind).decode())
        try:
            return _pair(path.read_bytes().strip())
        except (OSError, nkeys.NkeysError, ValueError) as error:
            raise Precondition(
                f"The key in {path} cannot be read ({error}).",
                reason="KEY_UNREADABLE",
                remedy="Restore the file from a backup; without it every node must enrol again.",
            ) from error

    @staticmethod
    def _public(pair: Any) -> str:
        public: bytes = pair.public_key
        return public.decode()


def _new_seed(kind: str) -> bytes:
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), _KINDS[kind])
    return seed


def _pair(seed: bytes) -> Any:
    return nkeys.from_seed(bytearray(seed))


def _check_user_key(public: str) -> None:
    padded = public + "=" * (-len(public) % 8)
    try:
        raw = base64.b32decode(padded)
    except ValueError:
        raw = b""
    checksum = int.from_bytes(raw[-2:], "little")
    if len(raw) != 35 or raw[0] != nkeys.PREFIX_BYTE_USER or nkeys.crc16(raw[:-2]) != checksum:
        raise Invalid(
            "This is not a NATS user's public key.",
            reason="BAD_NKEY",
            field="public_nkey",
            remedy="Send the public key (U…) that the agent made.",
        )


def _segment(value: dict[str, Any]) -> str:
    return _b64(json.dumps(value, separators=(",", ":")).encode())


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
