"""What operators and tenants see of the fleet: nodes, what is free, and a cordon."""

from __future__ import annotations

from . import names
from .domain.stock import Stock, stock
from .ports import Event, NodeDetail, Store


class Fleet:
    """The use cases about nodes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, limit: int, after: str) -> list[NodeDetail]:
        """A page of nodes, by id."""
        async with self._store.reading() as tx:
            return await tx.nodes.page(limit=limit, after=after)

    async def get(self, name: str) -> NodeDetail:
        """One node.

        Raises:
            Missing: no such node.
        """
        async with self._store.reading() as tx:
            found = await tx.nodes.detail(names.node_id(name))
        if found is None:
            raise names.no_node(name)
        return found

    async def stock(self) -> tuple[Stock, ...]:
        """What there is and what is free."""
        async with self._store.reading() as tx:
            return stock(await tx.nodes.views())

    async def stand(self, name: str, rack: str, rail: str) -> NodeDetail:
        """Say where a node stands; what is left empty the node says itself.

        Raises:
            Missing: no such node.
        """
        node_id = names.node_id(name)
        async with self._store.writing() as tx:
            await tx.nodes.lock([node_id])
            before = await tx.nodes.detail(node_id)
            if before is None:
                raise names.no_node(name)
            if (before.row.rack, before.row.rail) != (rack, rail):
                await tx.nodes.stand(node_id, rack, rail)
                facts = {"rack": rack, "rail": rail}
                await tx.events.tell(Event("node.moved", name, facts=facts))
            after = await tx.nodes.detail(node_id)
        assert after is not None
        return after

    async def cordon(
        self, name: str, *, cordoned: bool, note: str = "", for_ms: int = 0
    ) -> NodeDetail:
        """Stop or resume giving new work to a node; what runs there goes on.

        Args:
            name: ``nodes/N``.
            cordoned: no new work.
            note: why, for people.
            for_ms: it ends by itself after this long; 0 = when it is lifted.

        Raises:
            Missing: no such node.
        """
        node_id = names.node_id(name)
        async with self._store.writing() as tx:
            await tx.nodes.lock([node_id])
            before = await tx.nodes.detail(node_id)
            if before is None:
                raise names.no_node(name)
            if before.row.cordoned != cordoned or (cordoned and (note or for_ms)):
                note, for_ms = (note, for_ms) if cordoned else ("", 0)
                await tx.nodes.cordon(node_id, cordoned=cordoned, note=note, for_ms=for_ms)
                kind = "node.cordoned" if cordoned else "node.uncordoned"
                facts = {"note": note, "for_ms": str(for_ms)} if note or for_ms else {}
                await tx.events.tell(Event(kind, name, facts=facts))
            after = await tx.nodes.detail(node_id)
        assert after is not None
        return after
