from __future__ import annotations

import pytest
from gridlease_agent.domain.task import Task, Tenancy
from gridlease_agent.domain.tenancy import conflict

_PARTS = {"share-0": "gpu-0", "share-1": "gpu-0"}


def _task(lease_id: str, tenant: str, *devices: str, tenancy: Tenancy = Tenancy.SHARED) -> Task:
    return Task(lease_id, "projects/p/jobs/j/tasks/0", tenant, device_ids=devices, tenancy=tenancy)


@pytest.mark.parametrize(
    ("one", "other", "stands_in_the_way"),
    [
        (_task("a", "t"), _task("b", "u"), False),
        (_task("a", "t", "share-0"), _task("b", "u", "share-1"), True),
        (_task("a", "t", "share-0"), _task("b", "t", "share-1"), False),
        (_task("a", "t", "gpu-0"), _task("b", "u", "share-1"), True),
        (_task("a", "t", "mig-0"), _task("b", "u", "mig-1"), False),
        (_task("a", "t", tenancy=Tenancy.EXCLUSIVE_HOST), _task("b", "u"), True),
        (_task("a", "t"), _task("b", "u", tenancy=Tenancy.EXCLUSIVE_HOST), True),
        (_task("a", "t", tenancy=Tenancy.EXCLUSIVE_HOST), _task("b", "t"), False),
        (_task("a", "t", tenancy=Tenancy.EXCLUSIVE_DEVICE), _task("b", "u"), False),
    ],
)
def test_who_may_start_beside_whom(one: Task, other: Task, stands_in_the_way: bool) -> None:
    assert bool(conflict(one, [other], _PARTS)) is stands_in_the_way
    assert conflict(one, [one], _PARTS) == ""
