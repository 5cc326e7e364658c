"""Who may join the mesh: an operator, its accounts and its users, as signed tokens (JWT).

Pure Python: no ``nsc``, no calls to the broker. The broker trusts the operator's key and holds
the accounts' tokens, so a new user needs no reload; a revoked one is named in the account's
token, which does. Seeds are files of mode 0600 in one folder; the scheduler needs only
``signing.seed``, which can make users and nothing else. A node's own seed never comes here: it
sends its public key and gets a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import nkeys as _nkeys
from gridlease_kernel.clock import Clock, SystemClock
from gridlease_kernel.faults import Invalid, Precondition

from gridlease_mesh import subjects
from gridlease_mesh.permissions import Permissions, node_permissions, role_permissions

NODE_TTL_S = 24 * 3600
nkeys: Any = _nkeys  # untyped
_UNLIMITED = -1
_JETSTREAM = {"mem_storage": _UNLIMITED, "disk_storage": _UNLIMITED}
_KINDS = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}


def new_user_key() -> tuple[str, str]:
    """A fresh (seed, public key) of a user; the seed stays where it was made."""
    pair = _pair(_new_seed("user"))
    return pair.seed.decode(), pair.public_key.decode()


def public_key_of(seed: str) -> str:
    """The public key of a user's seed."""
    return _public(_pair(seed.encode()))


def creds_text(token: str, seed: str) -> str:
    """The contents of a credentials file, as NATS clients read it."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def write_creds(path: Path, token: str, seed: str) -> None:
    """Write or renew a credentials file, 0600, in one step."""
    _write_private(path, creds_text(token, seed))


class UserSigner:
    """Signs users' tokens for one account, with the account's key or one of its signing keys."""

    def __init__(
        self,
        seed: Path,
        *,
        prefix: str = subjects.DEFAULT_PREFIX,
        clock: Clock | None = None,
    ) -> None:
        """Open the key: ``<name>.seed``, of the account named in ``<name>.account`` beside it.

        Raises:
            Precondition: the seed is not there, or damaged.
        """
        self._pair = _read_pair(seed)
        beside = seed.with_suffix(".account")
        self._account = beside.read_text("ascii").strip() if beside.is_file() else None
        self._revoked = seed.parent / "revoked.json"
        self._prefix = prefix
        self._clock = clock or SystemClock()

    def node(self, node_id: str, public_nkey: str, ttl_s: int = NODE_TTL_S) -> str:
        """A token for a node's own key: valid ``ttl_s`` seconds, for its own names only.

        Raises:
            Invalid: not a node id, or not a user's public key.
        """
        check_user_key(public_nkey)
        assert ttl_s > 0, ttl_s
        allow = node_permissions(node_id, self._prefix)
        return self.user(public_nkey, f"node:{node_id}", allow, ttl_s)

    def role(self, name: str, public_nkey: str, ttl_s: int | None = None) -> str:
        """A token for a room: what the table of roles allows it.

        Raises:
            Invalid: no such role, or not a user's public key.
        """
        check_user_key(public_nkey)
        return self.user(public_nkey, name, role_permissions(name, self._prefix), ttl_s)

    def user(
        self, public_nkey: str, name: str, allow: Permissions | None, ttl_s: int | None
    ) -> str:
        """A token for anybody; None allows everything in the account."""
        claims: dict[str, Any] = {
            "type": "user",
            "pub": {"allow": list(allow.publish)} if allow else {},
            "sub": {"allow": list(allow.subscribe)} if allow else {},
            "subs": _UNLIMITED,
            "data": _UNLIMITED,
            "payload": _UNLIMITED,
        }
        if self._account is not None:
            claims["issuer_account"] = self._account
        return sign(self._pair, public_nkey, name, claims, self._clock, ttl_s)

    def revoke(self, public_nkey: str) -> None:
        """Note that tokens of this key made until now are void; in force with the next account
        token (the embedded broker's keeper sees to that).

        Raises:
            Invalid: not a user's public key.
        """
        check_user_key(public_nkey)
        known = revocations(self._revoked)
        known[public_nkey] = int(self._clock.wall().timestamp())
        _write_private(self._revoked, json.dumps(known, indent=1))


def revocations(path: Path) -> dict[str, int]:
    """The revoked keys of users, and when (seconds since 1970); none where there is no file."""
    try:
        found: dict[str, int] = json.loads(path.read_text("ascii"))
    except FileNotFoundError:
        return {}
    return found


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
        self._clock = clock or SystemClock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._operator = self._key("operator", "operator")
        self._account = self._key("account", "mesh")
        self._system = self._key("account", "system")
        self._signing = self._key("account", "signing")
        if not (folder / "signing.account").exists():
            _write_private(folder / "signing.account", self.account_public_key)
        self.signer = UserSigner(self.signing_seed, prefix=prefix, clock=clock)

    @property
    def signing_seed(self) -> Path:
        """The key that makes users; all that the scheduler needs."""
        return self._folder / "signing.seed"

    @property
    def revoked(self) -> Path:
        """The list of revoked keys."""
        return self._folder / "revoked.json"

    @property
    def account_public_key(self) -> str:
        """The account that services and nodes live in."""
        return _public(self._account)

    @property
    def system_public_key(self) -> str:
        return _public(self._system)

    def operator_token(self) -> str:
        """The operator's self-signed token, for the broker's configuration.

        Made once: a broker takes no other while it runs, so every reload must show the same.
        """
        path = self._folder / "operator.jwt"
        if not path.exists():
            claims = {"type": "operator", "system_account": self.system_public_key}
            public = _public(self._operator)
            _write_private(path, sign(self._operator, public, "gridlease", claims, self._clock))
        return path.read_text("ascii")

    def account_tokens(self) -> dict[str, str]:
        """Account tokens by public key, for the broker's memory resolver."""
        return {
            self.account_public_key: self._account_token(self._account, "mesh", _JETSTREAM),
            self.system_public_key: self._account_token(self._system, "system", {}),
        }

    def mint_role_user(self, name: str, ttl_s: int | None = None) -> Path:
        """Credentials of a room, which may do what its role allows; the token is made anew.

        Raises:
            Invalid: no such role.
        """
        path = self._folder / f"role-{name}.creds"
        seed, public = _own_user_key(path.with_suffix(".seed"))
        write_creds(path, self.signer.role(name, public, ttl_s), seed)
        return path

    def mint_service_user(self, name: str) -> Path:
        """Credentials that may do everything in the account; the file, reused where it exists.

        For tests and for repairs: what runs has a role (``mint_role_user``).
        """
        subjects.check_token(name, "name")
        path = self._folder / f"{name}.creds"
        if not path.exists():
            seed, public = new_user_key()
            write_creds(path, self.signer.user(public, name, None, None), seed)
        return path

    def mint_system_user(self) -> Path:
        """Credentials of the system account: for tools that ask the broker about itself."""
        path = self._folder / "system.creds"
        if not path.exists():
            seed, public = new_user_key()
            signer = UserSigner(self._folder / "system.seed", clock=self._clock)
            write_creds(path, signer.user(public, "system", None, None), seed)
        return path

    def mint_node_user(self, node_id: str, public_nkey: str, ttl_s: int = NODE_TTL_S) -> str:
        """A token for a node's own key, see ``UserSigner.node``.

        Raises:
            Invalid: not a node id, or not a user's public key.
        """
        return self.signer.node(node_id, public_nkey, ttl_s)

    def _account_token(self, pair: Any, name: str, storage: dict[str, int]) -> str:
        names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        limits: dict[str, Any] = dict.fromkeys(names, _UNLIMITED)
        limits |= {"wildcards": True, **storage}
        claims: dict[str, Any] = {"type": "account", "limits": limits, "default_permissions": {}}
        if storage:
            limits |= {"streams": _UNLIMITED, "consumer": _UNLIMITED}
            claims["signing_keys"] = [_public(self._signing)]
            claims["revocations"] = revocations(self.revoked)
        return sign(self._operator, _public(pair), name, claims, self._clock)

    def _key(self, kind: str, name: str) -> Any:
        path = self._folder / f"{name}.seed"
        if not path.exists():
            _write_private(path, _new_seed(kind).decode())
        return _read_pair(path)


def sign(
    issuer: Any,
    subject: str,
    name: str,
    nats: dict[str, Any],
    clock: Clock,
    ttl_s: int | None = None,
) -> str:
    """A token in NATS's form of JWT. Source: nats-io/jwt v2, algorithm ed25519-nkey."""
    now_s = int(clock.wall().timestamp())
    claims: dict[str, Any] = {
        "iat": now_s,
        "iss": _public(issuer),
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


def claims_of(token: str) -> dict[str, Any]:
    """What a token says; its signature is the broker's concern.

    Raises:
        Invalid: it is no token.
    """
    try:
        body = token.split(".")[1]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError) as error:
        raise Invalid(
            "This is not a token.",
            reason="BAD_TOKEN",
            field="token",
            remedy="Send the JWT as it was made.",
        ) from error
    return found


def _public(pair: Any) -> str:
    public: bytes = pair.public_key
    return public.decode()


def _read_pair(path: Path) -> Any:
    try:
        return _pair(path.read_bytes().strip())
    except (OSError, nkeys.NkeysError, ValueError) as error:
        raise Precondition(
            f"The key in {path} cannot be read ({error}).",
            reason="KEY_UNREADABLE",
            remedy="Restore the file from a backup; without it every node must enrol again.",
        ) from error


def _own_user_key(path: Path) -> tuple[str, str]:
    """The user's key in a file, made where there is none."""
    if not path.exists():
        _write_private(path, new_user_key()[0])
    pair = _read_pair(path)
    return pair.seed.decode(), _public(pair)


def _new_seed(kind: str) -> bytes:
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), _KINDS[kind])
    return seed


def _pair(seed: bytes) -> Any:
    return nkeys.from_seed(bytearray(seed))


def check_user_key(public: str) -> None:
    """Whether this is a user's public key.

    Raises:
        Invalid: it is not.
    """
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
