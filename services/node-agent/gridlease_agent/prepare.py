"""From a task to a sandbox that could start: its files, its environment, its limits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gridlease_kernel.faults import Invalid

from gridlease_agent.domain.task import Egress, Task, Tenancy, environment
from gridlease_agent.ports import Bundles, Environments, Files
from gridlease_agent.runtimes.spec import Network, SandboxSpec, shell_argv, uid_base

_EMULATED_MS = 10_000


class Preparer:
    """Prepares one task at a time for each lease; leases side by side."""

    def __init__(
        self,
        node_id: str,
        files: Files,
        bundles: Bundles,
        environments: Environments,
        shell: str,
    ) -> None:
        self._node_id = node_id
        self._files = files
        self._bundles = bundles
        self._environments = environments
        self._shell = shell
        self._slots: dict[str, int] = {}

    async def prepare(self, task: Task) -> SandboxSpec:
        """Bundle, working folder, environment -> the sandbox's spec.

        Raises:
            Unreachable, Late: try again. Other faults: the task can never start.
        """
        if not task.commands:
            raise Invalid(
                "The task has no commands.",
                reason="NO_COMMANDS",
                field="spec.commands",
                remedy="Give at least one.",
            )
        bundle = await self._bundles.fetch(task.bundle_digest) if task.bundle_digest else None
        work = await asyncio.to_thread(self._files.prepare, task.lease_id, task.device_ids)
        try:
            if bundle is not None:
                folder = Path(f"/proc/self/fd/{work}")
                await asyncio.to_thread(self._bundles.unpack, bundle, folder, task.disk_bytes)
        finally:
            os.close(work)
        await asyncio.to_thread(self._files.reports.make, task.lease_id)
        prepared = self._environments.resolve(task.runtime) if task.runtime else None
        slot = await self._slot(task.lease_id)
        return SandboxSpec(
            task.lease_id,
            shell_argv(task.commands, self._shell),
            env=environment(task, self._node_id),
            uid_base=uid_base(slot),
            memory_bytes=task.memory_bytes,
            cpu_milli=task.cpu_milli,
            disk_bytes=task.disk_bytes,
            environment=prepared.folder if prepared else "",
            environment_env=prepared.env if prepared else (),
            devices=task.device_ids,
            core_tag=task.tenancy is not Tenancy.SHARED,
            network=_network(task, slot),
            emulated_duration_ms=_emulated_ms(task),
        )

    def forget(self, lease_id: str) -> None:
        """Its folder says from now on whose uids are taken."""
        self._slots.pop(lease_id, None)

    async def _slot(self, lease_id: str) -> int:
        on_disk = await asyncio.to_thread(self._files.taken_slots)
        taken = on_disk | set(self._slots.values())
        slot = next(number for number in range(60_000) if number not in taken)
        self._slots[lease_id] = slot
        return slot


def _network(task: Task, slot: int) -> Network | None:
    """None = a loopback alone: it may call nobody."""
    if task.network.egress is Egress.NONE:
        return None
    return Network(slot, task.tenant, task.network, task.job, task.gang_index)


def _emulated_ms(task: Task) -> int:
    """How long an emulated node pretends to work: ``GRIDLEASE_EMULATED_MS`` of the task."""
    text = dict(task.env).get("GRIDLEASE_EMULATED_MS", "")
    return int(text) if text.isdecimal() else _EMULATED_MS
