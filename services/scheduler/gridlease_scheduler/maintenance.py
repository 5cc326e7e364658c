"""Ends the cordons whose time is over: a maintenance window closes by itself."""

from __future__ import annotations

from .ports import Event, Store


class EndMaintenance:
    """The use case; the leader's, so that it is told once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, epoch: int) -> int:
        """How many nodes take work again.

        Raises:
            Conflict: LEADER_DEPOSED.
            Unreachable: the database is away.
        """
        async with self._store.reading() as tx:
            over = await tx.nodes.cordons_over()
        if not over:
            return 0
        async with self._store.writing(epoch) as tx:
            await tx.nodes.lock(over)
            over = [node_id for node_id in await tx.nodes.cordons_over() if node_id in over]
            for node_id in over:
                await tx.nodes.cordon(node_id, cordoned=False, note="", for_ms=0)
                facts = {"why": "its time is over"}
                await tx.events.tell(Event("node.uncordoned", f"nodes/{node_id}", facts=facts))
        return len(over)
