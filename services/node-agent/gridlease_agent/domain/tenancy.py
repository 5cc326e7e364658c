"""May this task start beside those that are here? The node's own word, whatever was placed.

What the scheduler decides by keeps to this; a node that finds it broken starts nothing, and the
task waits until the other has ended or its start_by has passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gridlease_agent.domain.task import Task, Tenancy


def conflict(task: Task, others: Iterable[Task], parts: Mapping[str, str]) -> str:
    """Why it must not start now, in words; "" = it may.

    Args:
        others: tasks whose sandboxes live.
        parts: devices that are parts of another and share its memory protection (not MIG
            instances), each with the device that it is a part of.
    """
    mine = _whole(task, parts)
    for other in others:
        if other.tenant == task.tenant or other.lease_id == task.lease_id:
            continue
        if Tenancy.EXCLUSIVE_HOST in (task.tenancy, other.tenancy):
            return "a task that shares its host with no other tenant"
        shared = mine & _whole(other, parts)
        if shared:
            return f"another tenant is on {min(shared)}, whose parts separate nobody"
    return ""


def _whole(task: Task, parts: Mapping[str, str]) -> frozenset[str]:
    return frozenset(parts.get(device, device) for device in task.device_ids)
