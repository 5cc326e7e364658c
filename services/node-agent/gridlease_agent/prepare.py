"""From a task to a sandbox that could start: its files, its environment, its limits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gridlease_kernel.faults import Invalid, Precondition, Unreachable

from gridlease_agent.domain.task import WORK_PATH, Egress, Task, Tenancy, environment
from gridlease_agent.images.roots import Root
from gridlease_agent.images.tasks import TaskImages
from gridlease_agent.ports import Bundles, Environments, Files, Prepared
from gridlease_agent.runtimes.spec import (
    ENV_PATH,
    TASK_ID,
    Network,
    SandboxSpec,
    shell_argv,
    uid_base,
)

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
        images: TaskImages | None = None,
    ) -> None:
        self._node_id = node_id
        self._files = files
        self._bundles = bundles
        self._environments = environments
        self._shell = shell
        self._images = images
        self._slots: dict[str, int] = {}

    async def prepare(self, task: Task) -> SandboxSpec:
        """Bundle, working folder, environment -> the sandbox's spec.

        Raises:
            Unreachable, Late: try again. Other faults: the task can never start.
        """
        if not task.commands and not task.image:
            raise Invalid(
                "The task has no commands.",
                reason="NO_COMMANDS",
                field="spec.commands",
                remedy="Give at least one.",
            )
        if task.sealed:
            raise Unreachable(
                "Its secrets are not on disk, and the scheduler has not told them again.",
                reason="SECRETS_AWAITED",
                field="spec.secrets",
                remedy="Nothing: they come with the next answer.",
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
        root = await self._root(task) if task.image else None
        slot = await self.slot(task.lease_id)
        return SandboxSpec(
            task.lease_id,
            _argv(task, root, self._shell),
            env=environment(task, self._node_id),
            uid_base=uid_base(slot),
            memory_bytes=task.memory_bytes,
            cpu_milli=task.cpu_milli,
            disk_bytes=task.disk_bytes,
            environment=prepared.folder if prepared else "",
            environment_env=joined(prepared, root),
            root=root.digest if root else "",
            user=(root.user if root else 0) or TASK_ID,
            cwd=root.cwd if root and not task.commands else WORK_PATH,
            secrets=task.secrets,
            devices=task.device_ids,
            core_tag=task.tenancy is not Tenancy.SHARED,
            network=_network(task, slot),
            emulated_duration_ms=_emulated_ms(task),
        )

    async def _root(self, task: Task) -> Root:
        if self._images is None:
            raise Precondition(
                "This node cannot run images.",
                reason="NEEDS_ROOT",
                field="spec.image",
                remedy="Run its agent as root, or use a prepared environment.",
            )
        return await self._images.ready(task.image, task.lease_id, task.job)

    def forget(self, lease_id: str) -> None:
        """Its folder says from now on whose uids are taken."""
        self._slots.pop(lease_id, None)

    async def slot(self, lease_id: str) -> int:
        """Whose uids it has, until ``forget``; nobody else's here."""
        on_disk = await asyncio.to_thread(self._files.taken_slots)
        taken = on_disk | set(self._slots.values())
        slot = next(number for number in range(60_000) if number not in taken)
        self._slots[lease_id] = slot
        return slot


def _argv(task: Task, root: Root | None, shell: str) -> tuple[str, ...]:
    """The job's commands, by the image's own shell; without any, what the image itself runs.

    Raises:
        Invalid: NO_COMMANDS.
    """
    if root is None:
        return shell_argv(task.commands, shell)
    if task.commands:
        return shell_argv(task.commands, "/bin/sh")
    if not root.argv:
        raise Invalid(
            "Neither the job nor its image says what to run.",
            reason="NO_COMMANDS",
            field="spec.commands",
            remedy="Give commands, or an image with an entrypoint.",
        )
    return root.argv


def joined(prepared: Prepared | None, root: Root | None) -> tuple[tuple[str, str], ...]:
    """The image's variables, and an environment's over them; both find each other's programs."""
    found = dict(root.env) if root else {}
    if prepared and "PATH" in found:
        found["PATH"] = f"{ENV_PATH}/bin:{found['PATH']}"
    return tuple((found | dict(prepared.env if prepared else ())).items())


def _network(task: Task, slot: int) -> Network | None:
    """None = a loopback alone: it may call nobody."""
    if task.network.egress is Egress.NONE:
        return None
    return Network(slot, task.tenant, task.network, task.job, task.gang_index)


def _emulated_ms(task: Task) -> int:
    """How long an emulated node pretends to work: ``GRIDLEASE_EMULATED_MS`` of the task."""
    text = dict(task.env).get("GRIDLEASE_EMULATED_MS", "")
    return int(text) if text.isdecimal() else _EMULATED_MS
