"""Lets a host join: a one-time token for the operator, a credential for the host's own key."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass

from gridlease_kernel.clock import Clock
from gridlease_kernel.faults import Unauthenticated
from gridlease_kernel.ids import Ids

from . import names
from .credential import revoked
from .ports import Credentials, Event, Store, TokenRow

_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token, told once."""

    token: str
    node_id: str
    expires_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Who the node is now, and its credential."""

    node_id: str
    credential: str


class CreateToken:
    """The use case of the operator."""

    def __init__(self, store: Store, ids: Ids, clock: Clock) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock

    async def __call__(self, node_id: str, site: str, ttl_ms: int) -> NewToken:
        """A token; only its hash is kept.

        Raises:
            Invalid: a malformed site.
        """
        ttl_ms = ttl_ms or _HOUR_MS
        node_id = node_id or self._ids.new("node")
        token = self._ids.new("join")
        async with self._store.writing() as tx:
            await tx.nodes.add_token(_hash(token), node_id, names.site_id(site), ttl_ms)
        expires_at = self._clock.wall() + datetime.timedelta(milliseconds=ttl_ms)
        return NewToken(token, node_id, expires_at)


class Enrol:
    """The use case of the host."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self._store = store
        self._credentials = credentials

    async def __call__(self, token: str, public_key: str) -> Enrolled:
        """The node's id and credential; again for the same key, which renews the credential: so
        a node that was away for longer than its credential lives comes back.

        Raises:
            Unauthenticated: NODE_TOKEN_UNKNOWN, NODE_TOKEN_EXPIRED or NODE_TOKEN_USED.
            Forbidden: NODE_REVOKED.
        """
        async with self._store.writing() as tx:
            row = await tx.nodes.token(_hash(token))
            row = _usable(row, public_key)
            if row.used_key is not None:
                node = await tx.nodes.detail(row.node_id)
                if node is None or node.row.revoked or node.row.public_key != public_key:
                    raise revoked(row.node_id)
            credential = self._credentials.mint(row.node_id, public_key)
            if row.used_key is None:
                await tx.nodes.enrol(_hash(token), row, public_key)
                facts = {"site": f"sites/{row.site}"}
                await tx.events.tell(Event("node.enrolled", f"nodes/{row.node_id}", facts=facts))
        return Enrolled(row.node_id, credential)


def _usable(row: TokenRow | None, public_key: str) -> TokenRow:
    if row is None:
        raise _refused("NODE_TOKEN_UNKNOWN", "This token is not known.")
    if row.used_key == public_key:
        return row
    if row.used_key is not None:
        raise _refused("NODE_TOKEN_USED", "This token has been used by another host.")
    if row.expired:
        raise _refused("NODE_TOKEN_EXPIRED", "This token has expired.")
    return row


def _refused(reason: str, message: str) -> Unauthenticated:
    return Unauthenticated(
        message,
        reason=reason,
        field="token",
        remedy="Ask the operator for a new one: `gridlease nodes add`.",
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
