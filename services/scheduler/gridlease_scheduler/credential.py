"""A node's credential after it has joined: renewed while it is trusted, ended when it is not."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_kernel.faults import Forbidden

from . import names
from .ports import Credentials, Event, NodeDetail, Store


@dataclass(frozen=True, slots=True)
class Renewed:
    """A credential for the key that the node enrolled with; ``valid_for_ms`` from now."""

    credential: str
    valid_for_ms: int


class Renew:
    """The use case of the node; who asks is known from its connection."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self._store = store
        self._credentials = credentials

    async def __call__(self, node_id: str) -> Renewed:
        """A fresh credential; any number of times.

        Raises:
            Forbidden: NODE_REVOKED, where it is unknown or was cut off.
        """
        async with self._store.reading() as tx:
            node = await tx.nodes.detail(node_id)
        if node is None or node.row.revoked:
            raise revoked(node_id)
        credential = self._credentials.mint(node_id, node.row.public_key)
        return Renewed(credential, self._credentials.ttl_s * 1_000)


class Revoke:
    """The use case of the operator."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self._store = store
        self._credentials = credentials

    async def __call__(self, name: str) -> NodeDetail:
        """Cut a node off: first it is written, then the broker is told; again tells it again.

        What ran there ends as on any node that falls silent: at its deadline, by itself.

        Raises:
            Missing: no such node.
        """
        node_id = names.node_id(name)
        async with self._store.writing() as tx:
            await tx.nodes.lock([node_id])
            before = await tx.nodes.detail(node_id)
            if before is None:
                raise names.no_node(name)
            if not before.row.revoked:
                await tx.nodes.revoke(node_id)
                await tx.events.tell(Event("node.revoked", name))
            after = await tx.nodes.detail(node_id)
        assert after is not None
        self._credentials.revoke(after.row.public_key)
        return after


def revoked(node_id: str) -> Forbidden:
    """The node may not be here."""
    return Forbidden(
        f"Node {node_id} has been cut off.",
        reason="NODE_REVOKED",
        remedy="Ask the operator for a new token (gridlease nodes add) and join again.",
    )
