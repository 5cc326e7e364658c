"""The walk of a job, from submit to its end, over the real mesh."""

import grpc
import pytest
from gridlease.scheduler.v1 import job_pb2
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.waiting import eventually

from tests.integration.scheduler.world import GIB, PROJECT, request


async def test_a_job_is_placed_runs_and_succeeds(world, pool):
    await world.start()
    agent = await world.agent()
    job = await world.submit(display_name="train", env={"A": "b"})
    assert job.name.startswith("projects/demo/jobs/train-")
    spec = await agent.given()
    assert spec.task == f"{job.name}/tasks/0"
    assert (spec.attempt, list(spec.commands), spec.env["A"]) == (1, ["true"], "b")
    assert spec.allocation.chip == "cpu-x86-64"
    assert spec.allocation.quantity_milli == 1_000
    order = world.billing.orders[spec.lease]
    assert (order.chip, order.node, order.tenant) == ("cpu-x86-64", "n1", "tenants/demo")
    placed = await world.until(job.name, "RUNNING")
    assert placed.reason.code == "PLACED"
    assert placed.tasks[0].node == "nodes/n1"
    explained = await world.explain(job.name)
    assert explained.reason.code == "PLACED"
    assert explained.reason.evidence["rate_nano_per_hour"] == "48000000"
    assert "the lowest cost" in explained.reason.message
    await agent.run(spec.lease)
    assert (await world.get(job.name)).HasField("ready_time")
    await agent.end(spec.lease)
    done = await world.until(job.name, "SUCCEEDED")
    assert done.reason.code == "EXITED"
    assert done.tasks[0].ran_ns == 1_000_000_000
    assert done.HasField("end_time")
    assert set(world.billing.closed) == {spec.lease}
    rows = await pool.fetch("SELECT type FROM event WHERE entity = $1 ORDER BY sequence", job.name)
    assert [row["type"] for row in rows] == [
        "job.submitted", "job.placed", "job.ready", "job.exited", "job.succeeded",
    ]  # fmt: skip
    # Afterwards the node should have nothing, and has nothing left to be told.
    answer = await agent.sync()
    assert not answer.run
    assert not answer.stop


async def test_a_failed_exit_is_never_run_again(world):
    await world.start()
    agent = await world.agent()
    job = await world.submit()
    spec = await agent.given()
    await agent.end(spec.lease, code=3)
    failed = await world.until(job.name, "FAILED")
    assert (failed.reason.code, failed.tasks[0].exit_code) == ("EXITED", 3)
    assert failed.tasks[0].attempt == 1


async def test_a_submit_is_durable_and_idempotent(world):
    await world.start()
    first = await world.submit("same", display_name="one")
    again = await world.submit("same", display_name="one")
    assert first.name == again.name
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.submit("same", display_name="two")
    fault = fault_from_error(caught.value)
    assert (fault.reason, fault.field) == ("REQUEST_ID_REUSED", "request_id")
    page = await world.jobs.ListJobs(job_pb2.ListJobsRequest(project=PROJECT))
    assert [job.name for job in page.jobs] == [first.name]


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"chips": ["A1000"]}, "UNKNOWN_CHIP", "spec.resources.accelerator.chips"),
        ({"nodes": {"min": 1, "max": 1025}}, "RULE_VIOLATED", "spec"),
        ({"batch_size": {"min": 8, "max": 64}}, "BAD_BATCH_SIZE", "spec.batch_size"),
        ({"priority": 101}, "RULE_VIOLATED", "spec.priority"),
        ({"cpu_milli": 5}, "RULE_VIOLATED", "spec.resources"),
    ],
)
async def test_a_bad_job_is_refused_with_its_field(world, fields, reason, field):
    await world.start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.submit(**fields)
    fault = fault_from_error(caught.value)
    assert (fault.reason, fault.field) == (reason, field)
    assert fault.remedy


async def test_a_foreign_job_answers_as_a_missing_one(world):
    await world.start()
    job = await world.submit()
    answers = []
    for project, name in (
        ("projects/other", job.name),
        ("projects/other", "projects/other/jobs/none"),
        (PROJECT, "projects/demo/jobs/none"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.jobs.GetJob(job_pb2.GetJobRequest(project=project, name=name))
        answers.append((fault_from_error(caught.value).reason, caught.value.code()))
    assert set(answers) == {("JOB_NOT_FOUND", grpc.StatusCode.NOT_FOUND)}


async def test_a_waiting_job_is_cancelled_at_once(world):
    await world.start()
    job = await world.submit()
    await world.reason(job.name, "NO_NODES")
    cancel = job_pb2.CancelJobRequest(project=PROJECT, name=job.name)
    first = (await world.jobs.CancelJob(cancel)).job
    second = (await world.jobs.CancelJob(cancel)).job
    assert first == second
    assert first.reason.code == "CANCELLED"


async def test_a_running_job_is_stopped_through_its_lease(world):
    await world.start()
    agent = await world.agent()
    job = await world.submit(notice_ms=7_000)
    spec = await agent.given()
    await agent.run(spec.lease)
    await world.jobs.CancelJob(job_pb2.CancelJobRequest(project=PROJECT, name=job.name))
    answer = await agent.sync()
    assert [(stop.lease, stop.notice_ms) for stop in answer.stop] == [(spec.lease, 7_000)]
    await agent.end(spec.lease, code=143, reason="STOPPED")
    done = await world.until(job.name, "CANCELLED")
    assert done.tasks[0].exit_code == 143
    assert world.billing.closed[spec.lease].notice_ms == 7_000


async def test_the_place_is_given_again_only_at_closed(world):
    world.billing.wait_ms = 1_500
    await world.start()
    agent = await world.agent(cpu_milli=1_000)
    first = await world.submit()
    spec = await agent.given()
    second = await world.submit()
    waits = await world.reason(second.name, "NOT_ENOUGH_CPU")
    assert waits.evidence["most_free_cpu_milli"] == "0"
    agent.see(spec.lease, "EXITED", code=0)  # not gone: billing's wait must pass
    answer = await agent.sync()
    assert [stop.lease for stop in answer.stop] == [spec.lease]
    await eventually(lambda: world.billing.closed, what="Close was asked")
    assert not (await agent.sync()).run
    assert (await world.get(second.name)).state == second.state
    await world.until(first.name, "SUCCEEDED")
    assert (await agent.given()).task.startswith(second.name)


async def test_billing_refuses_then_has_the_money(world):
    await world.start()
    agent = await world.agent()
    sample = request("r-poor")
    world.billing.refuse = _Everything(("CREDIT_TOO_LOW", "Pay in 5 USD."))
    job = (await world.jobs.SubmitJob(sample)).job
    reason = await world.reason(job.name, "CREDIT_TOO_LOW")
    assert reason.hint == "Pay in 5 USD."
    assert (await world.explain(job.name)).reason.code == "CREDIT_TOO_LOW"
    world.billing.refuse = {}
    assert (await agent.given()).task.startswith(job.name)


async def test_billing_away_places_nothing_and_leaves_no_hold(world, pool):
    await world.start()
    agent = await world.agent()
    world.billing.down = True
    job = await world.submit()
    await world.reason(job.name, "BILLING_UNREACHABLE")
    assert await pool.fetchval("SELECT count(*) FROM lease") == 0
    world.billing.down = False
    assert (await agent.given()).task.startswith(job.name)


async def test_a_chip_that_nobody_has_is_explained(world):
    await world.start()
    await world.agent(memory=64 * GIB)
    job = await world.submit(chips=["H100"])
    reason = await world.reason(job.name, "NO_SUCH_CHIP")
    assert "H100" in reason.message
    found = await world.explain(job.name)
    assert found.reason.code == "NO_SUCH_CHIP"
    assert dict(found.nodes_ruled_out) == {"NO_SUCH_CHIP": 1}


async def test_an_emulated_node_takes_only_who_asks(world):
    await world.start()
    agent = await world.agent("fake", chips=["A100-80GB"], emulated=True)
    plain = await world.submit()
    await world.reason(plain.name, "EMULATED_ONLY")
    named = await world.submit(chips=["a100"])
    spec = await agent.given()
    assert spec.task.startswith(named.name)
    assert spec.allocation.chip == "A100-80GB"
    placed = await world.until(named.name, "RUNNING")
    assert "nothing really runs" in placed.reason.message


class _Everything(dict):
    def __init__(self, answer):
        self._answer = answer

    def get(self, key, default=None):
        return self._answer
