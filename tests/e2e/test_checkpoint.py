"""A job that must leave its node saves at the warning; its next attempt goes on from there."""

from __future__ import annotations

import re

import pytest
from gridlease.type.v1 import job_pb2
from gridlease_testkit.waiting import eventually

from tests.e2e.world import ENDED, World, draft, prints, state_is

# Told to end, it says why and saves; with a checkpoint it says which, and is done.
SAVES = (
    'test -z "$GRIDLEASE_CHECKPOINT" || { echo "from $GRIDLEASE_CHECKPOINT"; exit 0; }; '
    "cd $GRIDLEASE_REPORT_DIR; "
    'trap \'cat $GRIDLEASE_NOTICE_FILE; echo "{\\"id\\": \\"step-7\\"}" > new; '
    "mv new checkpoint.json; exit 0' TERM; "
    'echo "{\\"steps\\": 7, \\"steps_total\\": 90}" > progress.json; '
    "echo working; while true; do sleep 0.05; done"
)


@pytest.mark.slow  # a platform comes up: some 10 s
async def test_what_is_saved_at_the_warning_is_what_the_next_attempt_gets(world: World) -> None:
    async with world.tenant() as tenant, world.operator() as operator:
        name = (await tenant.submit(draft(SAVES, notice="20s"))).name
        await prints(tenant, name, b"working")
        [node] = await operator.list_nodes()
        await operator.drain_node(node.name, note="new memory")
        waits = await state_is(tenant, name, job_pb2.JOB_STATE_PENDING)
        assert waits.tasks[0].checkpoint.id == "step-7"
        await operator.cordon_node(node.name, cordoned=False)
        job = await state_is(tenant, name, *ENDED)
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
        assert job.tasks[0].attempt == 2

        async def said() -> bytes:
            output = b"".join([piece async for piece in tenant.logs(name)])
            return output if b"from" in output else b""

        assert re.search(rb"^from step-7$", await eventually(said), re.MULTILINE)
