"""What silence means: a node takes no new work, and after longer its leases close.

A node may be silent because nobody listened: silence is counted only while this process has led
and been on the mesh without a break.
"""

from __future__ import annotations

from dataclasses import replace

from .domain.job import JobState, Reason
from .domain.lease import Cause, State, Terms, connected, lost, to_closing
from .ports import Event, MonotonicClock, Silence, Store


class Lost:
    """The use case; one for each term of leadership."""

    def __init__(self, store: Store, clock: MonotonicClock, terms: Terms) -> None:
        self._store = store
        self._clock = clock
        self._terms = terms
        self._hearing_since_ms = clock.now_ms()

    def hear_anew(self) -> None:
        """The mesh was away: what was not heard meanwhile says nothing."""
        self._hearing_since_ms = self._clock.now_ms()

    async def __call__(self, epoch: int) -> int:
        """Note who fell silent, and close what was lost; how many leases.

        Raises:
            Conflict: LEADER_DEPOSED.
            Unreachable: the database is away.
        """
        heard_ms = self._clock.now_ms() - self._hearing_since_ms
        async with self._store.reading() as tx:
            silent = await tx.leases.on_silent_nodes()
            least_ms = min([self._terms.disconnected_ms, *(x.lost_after_ms for x in silent)])
            silences = [
                replace(x, silent_ms=min(x.silent_ms, heard_ms))
                for x in await tx.nodes.silences(least_ms)
            ]
            by_node = {x.node_id: x.silent_ms for x in silences}
            leases = [lease for lease in silent if lost(lease, 0, by_node.get(lease.node_id, 0))]
        for silence in silences:
            if silence.state == "READY" and not connected(0, silence.silent_ms, self._terms):
                await self._disconnect(silence, epoch)
        for lease in leases:
            await self._lose(lease.lease_id, lease.node_id, by_node[lease.node_id], epoch)
        return len(leases)

    async def _disconnect(self, silence: Silence, epoch: int) -> None:
        reason = Reason(
            "NODE_SILENT",
            f"It was not heard for {silence.silent_ms} ms; it takes no new work.",
            "Check its agent and its network.",
            {"silent_ms": str(silence.silent_ms)},
        )
        async with self._store.writing(epoch) as tx:
            await tx.nodes.lock([silence.node_id])
            await tx.nodes.disconnect(silence.node_id)
            await tx.events.tell(Event("node.disconnected", f"nodes/{silence.node_id}", "", reason))

    async def _lose(self, lease_id: str, node_id: str, silent_ms: int, epoch: int) -> None:
        async with self._store.writing(epoch) as tx:
            await tx.nodes.lock([node_id])
            held = await tx.leases.get(lease_id)
            assert held is not None, lease_id
            now = {x.node_id: x.silent_ms for x in await tx.nodes.silences(0, node_id)}
            if held.lease.state is not State.ACTIVE or now.get(node_id, 0) < min(
                silent_ms, held.lease.lost_after_ms
            ):
                return  # it was heard in the meantime
            lease = to_closing(held.lease, Cause.NODE_LOST, 0)
            reason = Reason(
                "NODE_LOST",
                f"Its node was not heard for {silent_ms} ms.",
                "It is placed again once it is certain that nothing of it runs any more.",
                {"silent_ms": str(silent_ms), "node": node_id, "lease": lease_id},
            )
            await tx.leases.stop(lease, reason)
            await tx.nodes.bump([node_id])
            job = await tx.jobs.get(held.job, lock=True)
            assert job is not None, held.job
            if job.state is JobState.RUNNING:
                await tx.jobs.move(job.name, job.state, reason)
            facts = {"lease": lease_id, "node": node_id}
            await tx.events.tell(Event("job.node_lost", job.name, job.project, reason, facts))
