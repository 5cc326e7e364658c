"""Jobs through the door: whose they are, what they cost, and rooms that restart."""

import asyncio
import dataclasses
import hashlib
import io
import tarfile

import asyncpg
import grpc
import pytest
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import job_pb2 as types
from gridlease_gateway.bootstrap import gateway
from gridlease_kernel.faults import (
    Conflict,
    Exhausted,
    Forbidden,
    Invalid,
    Missing,
    Precondition,
    TooLarge,
    Unauthenticated,
    Unreachable,
)
from gridlease_mesh.status import fault_from_error
from gridlease_testkit.waiting import eventually


def spec(**changes):
    made = types.JobSpec(commands=["true"], **changes)
    made.resources.SetInParent()
    return made


async def fault_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return fault_from_error(caught.value)


async def submitted(world, **changes):
    request = pb.CreateJobRequest(request_id="r-1", spec=spec(**changes))
    return (await world.stub("JobService").CreateJob(request)).job


async def other_tenant(world):
    """A key of another tenant."""
    access = world.stub("AccessService", "operator_key")
    await access.CreateTenant(pb.CreateTenantRequest(tenant_id="other"))
    made = await access.CreateApiKey(pb.CreateApiKeyRequest(project="projects/other"))
    return made.secret


async def test_a_job_goes_in_as_the_keys_tenant_and_project(world):
    job = await submitted(world)
    assert job.name.startswith("projects/demo/jobs/")
    asked = world.scheduler.submits[0]
    assert (asked.tenant, asked.project) == ("tenants/demo", "projects/demo")
    again = await submitted(world)
    assert again.name == job.name
    listed = await world.stub("JobService").ListJobs(pb.ListJobsRequest())
    assert [it.name for it in listed.jobs] == [job.name]


async def test_a_replay_with_another_body_is_refused(world):
    await submitted(world)
    request = pb.CreateJobRequest(request_id="r-1", spec=spec(priority=3))
    fault = await fault_of(world.stub("JobService").CreateJob(request))
    assert isinstance(fault, Conflict)
    assert (fault.reason, fault.field) == ("REQUEST_ID_REUSED", "request_id")


async def test_a_service_that_rests_is_woken_by_its_own_tenant(world):
    job = await submitted(world)
    woken = await world.stub("JobService").WakeJob(pb.WakeJobRequest(name=job.name))
    assert woken.job.name == job.name


async def test_a_foreign_job_answers_exactly_as_a_missing_one(world):
    job = await submitted(world)
    secret = await other_tenant(world)
    jobs, money = world.stub("JobService", secret), world.stub("BillingService", secret)
    missing = "projects/other/jobs/nothing"

    async def each(name):
        calls = [
            jobs.GetJob(pb.GetJobRequest(name=name)),
            jobs.CancelJob(pb.CancelJobRequest(name=name)),
            jobs.WakeJob(pb.WakeJobRequest(name=name)),
            jobs.ExplainJob(pb.ExplainJobRequest(name=name)),
            jobs.ListArtefacts(pb.ListArtefactsRequest(name=name)),
            money.ListUsage(pb.ListUsageRequest(job=name)),
            money.CreateInvoice(pb.CreateInvoiceRequest(job=name)),
        ]
        faults = [await fault_of(call) for call in calls]
        for stream in (
            jobs.WatchJob(pb.WatchJobRequest(name=name)),
            jobs.ReadJobLogs(pb.ReadJobLogsRequest(name=name)),
            jobs.ReadArtefact(pb.ReadArtefactRequest(name=name, path="x")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            faults.append(fault_from_error(caught.value))
        return [(type(it), it.reason, it.field, it.message.replace(name, "NAME")) for it in faults]

    foreign, absent = await each(job.name), await each(missing)
    assert foreign == absent
    assert {it[:2] for it in foreign} == {(Missing, "JOB_NOT_FOUND")}
    assert world.scheduler.jobs[job.name].state == types.JOB_STATE_PENDING
    invoice = await fault_of(money.GetInvoice(pb.GetInvoiceRequest(name="invoices/i-1")))
    nothing = await fault_of(money.GetInvoice(pb.GetInvoiceRequest(name="invoices/i-2")))
    assert invoice.reason == nothing.reason == "INVOICE_NOT_FOUND"
    assert (await jobs.ListJobs(pb.ListJobsRequest())).jobs == []
    parent = await fault_of(jobs.ListJobs(pb.ListJobsRequest(parent="projects/demo")))
    assert parent.reason == "PROJECT_NOT_FOUND"


async def test_a_budget_below_the_hold_names_the_least_amount(world):
    made = spec(budget_nano=1_000)
    made.resources.accelerator.chips.append("A100")
    fault = await fault_of(world.stub("JobService").CreateJob(pb.CreateJobRequest(spec=made)))
    assert isinstance(fault, Invalid)
    assert (fault.reason, fault.field) == ("BUDGET_TOO_SMALL", "spec.budget_nano")
    assert "1.50 USD" in fault.remedy
    assert not world.scheduler.submits
    made.budget_nano = 1_500_000_000
    await world.stub("JobService").CreateJob(pb.CreateJobRequest(spec=made))


async def test_a_quote_is_the_cheapest_that_fits(world):
    made = spec()
    made.resources.accelerator.chips.append("a100")
    made.resources.accelerator.count.min = 2
    money = world.stub("BillingService")
    quote = (await money.GetQuote(pb.GetQuoteRequest(spec=made))).quote
    assert (quote.chip, quote.quantity_milli, quote.duration_ms) == ("A100-80GB", 2_000, 3_600_000)
    (use,) = quote.uses
    assert (use.site, use.energy_mj) == ("sites/local", 400_000), "the sites that have the chip"
    made.resources.accelerator.chips[:] = ["B300"]
    fault = await fault_of(money.GetQuote(pb.GetQuoteRequest(spec=made)))
    assert fault.reason == "NO_OFFER"


async def test_rooms_that_restart_are_a_pause(world):
    world.scheduler.down = 3
    job = await submitted(world)
    watching = world.stub("JobService").WatchJob(pb.WatchJobRequest(name=job.name))
    assert (await watching.read()).job.state == types.JOB_STATE_PENDING
    world.scheduler.down = 2
    world.scheduler.set(job.name, types.JOB_STATE_RUNNING)
    assert (await watching.read()).job.state == types.JOB_STATE_RUNNING
    world.scheduler.set(job.name, types.JOB_STATE_SUCCEEDED)
    assert (await watching.read()).job.state == types.JOB_STATE_SUCCEEDED
    assert await watching.read() is grpc.aio.EOF


async def test_a_room_that_stays_away_is_named(world):
    world.scheduler.down = 10**6
    request = pb.GetJobRequest(name="projects/demo/jobs/x")
    fault = await fault_of(world.stub("JobService").GetJob(request, timeout=1.5))
    assert isinstance(fault, Unreachable)
    assert fault.remedy or fault.reason == "STARTING"


async def test_logs_wait_for_placement_and_survive_the_agent(world):
    job = await submitted(world)
    request = pb.ReadJobLogsRequest(name=job.name, follow=True)
    stream = world.stub("JobService").ReadJobLogs(request)
    output = b"".join(b"line %03d\n" % number for number in range(30))
    reading = asyncio.create_task(_all(stream))
    await asyncio.sleep(0)
    world.scheduler.set(job.name, types.JOB_STATE_RUNNING, lease="ls-1", node="nodes/n1")
    world.agent.fail_at = [50, 120]
    world.agent.grow("ls-1", output[:100])
    world.agent.grow("ls-1", output[100:], end=True)
    await eventually(lambda: not world.agent.fail_at)
    world.scheduler.set(job.name, types.JOB_STATE_SUCCEEDED)
    content, offset = await asyncio.wait_for(reading, 15)
    assert content == output
    assert offset == len(output)


async def test_logs_go_on_with_the_next_attempt(world):
    job = await submitted(world)
    world.agent.grow("ls-1", b"first\n", end=True)
    world.scheduler.set(job.name, types.JOB_STATE_RUNNING, lease="ls-1", node="nodes/n1")
    stream = world.stub("JobService").ReadJobLogs(pb.ReadJobLogsRequest(name=job.name, follow=True))
    assert (await stream.read()).content == b"first\n"
    world.agent.grow("ls-2", b"second\n", end=True)
    world.scheduler.set(job.name, lease="ls-2", attempt=2)
    second = await stream.read()
    assert (second.content, second.next_offset_bytes) == (b"second\n", (1 << 40) + 7)
    world.scheduler.set(job.name, types.JOB_STATE_SUCCEEDED)
    assert await stream.read() is grpc.aio.EOF
    # A client that comes back with that offset gets nothing twice.
    rest = world.stub("JobService").ReadJobLogs(
        pb.ReadJobLogsRequest(name=job.name, offset_bytes=(1 << 40) + 3)
    )
    assert (await rest.read()).content == b"ond\n"


async def _all(stream):
    content, offset = b"", 0
    async for answer in stream:
        content += answer.content
        offset = answer.next_offset_bytes
    return content, offset


async def test_artefacts_are_listed_and_read_across_an_interruption(world):
    job = await submitted(world)
    listed = pb.ListArtefactsRequest(name=job.name)
    fault = await fault_of(world.stub("JobService").ListArtefacts(listed))
    assert isinstance(fault, Precondition)
    assert fault.reason == "NOT_PLACED_YET"
    world.agent.artefacts = {"model.bin": bytes(range(256))}
    world.agent.fail_at = [100]
    world.scheduler.set(job.name, types.JOB_STATE_SUCCEEDED, lease="ls-1", node="nodes/n1")
    found = await world.stub("JobService").ListArtefacts(listed)
    assert [(it.path, it.size_bytes) for it in found.artefacts] == [("model.bin", 256)]
    stream = world.stub("JobService").ReadArtefact(
        pb.ReadArtefactRequest(name=job.name, path="model.bin")
    )
    assert b"".join([it.content async for it in stream]) == bytes(range(256))


def archive(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def upload(world, content, key="tenant_key"):
    size = 256 << 10
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    requests = iter([pb.UploadBundleRequest(content=it) for it in pieces])
    return world.stub("JobService", key).UploadBundle(requests)


async def test_a_bundle_is_kept_under_its_digest_for_its_project_only(world):
    content = archive(("train.py", b"print(1)\n"))
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    fault = await fault_of(
        world.stub("JobService").CreateJob(pb.CreateJobRequest(spec=spec(bundle_digest=digest)))
    )
    assert (fault.reason, fault.field) == ("BUNDLE_NOT_FOUND", "spec.bundle_digest")
    answer = await upload(world, content)
    assert (answer.digest, answer.size_bytes) == (digest, len(content))
    assert (await upload(world, content)).digest == digest
    await submitted(world, bundle_digest=digest)
    secret = await other_tenant(world)
    request = pb.CreateJobRequest(spec=spec(bundle_digest=digest))
    foreign = await fault_of(world.stub("JobService", secret).CreateJob(request))
    assert foreign.reason == "BUNDLE_NOT_FOUND"
    assert [it.name for it in world.settings.bundles.iterdir() if it.is_file()] == [digest[7:]]


async def test_a_node_reads_a_bundle_by_its_digest(world, nats):
    from gridlease.gateway.v1 import bundle_pb2, bundle_pb2_grpc
    from gridlease_mesh.bus import Bus

    content = archive(("data", bytes(700_000)))
    digest = (await upload(world, content)).digest
    async with await Bus.connect(
        nats.url,
        creds=nats.service_creds("agent"),
        name="agent",
        prefix=world.settings.subject_prefix,
        node_id="n1",
    ) as bus:
        stub = bundle_pb2_grpc.BundleContentServiceStub(bus.channel())
        stream = stub.ReadBundle(bundle_pb2.ReadBundleRequest(digest=digest))
        assert b"".join([it.content async for it in stream]) == content
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ReadBundle(bundle_pb2.ReadBundleRequest(digest="sha256:" + "0" * 64)).read()
        assert fault_from_error(caught.value).reason == "BUNDLE_NOT_FOUND"


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        (b"not a tar at all" * 100, Invalid, "BUNDLE_NOT_TAR"),
        (archive(("../escape", b"x")), Invalid, "BUNDLE_UNSAFE"),
        (archive(("/etc/passwd", b"x")), Invalid, "BUNDLE_UNSAFE"),
        (archive(("big", bytes(33 << 20))), TooLarge, "BUNDLE_TOO_LARGE"),
    ],
)
async def test_what_is_no_bundle_leaves_nothing(world, content, kind, reason):
    fault = await fault_of(upload(world, content))
    assert (type(fault), fault.reason, fault.field) == (kind, reason, "content")
    assert not [it for it in world.settings.bundles.rglob("*") if it.is_file()]


async def test_a_revoked_key_is_refused_within_a_second(world):
    access = world.stub("AccessService")
    made = await access.CreateApiKey(pb.CreateApiKeyRequest(display_name="short-lived"))
    await world.stub("AccessService", made.secret).GetCaller(pb.GetCallerRequest())
    await access.RevokeApiKey(pb.RevokeApiKeyRequest(name=made.api_key.name))
    fault = await fault_of(
        world.stub("AccessService", made.secret).GetCaller(pb.GetCallerRequest())
    )
    assert isinstance(fault, Unauthenticated)
    assert fault.reason == "KEY_REVOKED"


async def test_keys_of_another_project_cannot_be_seen_or_ended(world):
    secret = await other_tenant(world)
    mine = world.keys["tenant_key"].split("_")[1]
    other = world.stub("AccessService", secret)
    fault = await fault_of(other.RevokeApiKey(pb.RevokeApiKeyRequest(name=f"keys/{mine}")))
    assert fault.reason == "KEY_NOT_FOUND"
    assert len((await other.ListApiKeys(pb.ListApiKeysRequest())).api_keys) == 1
    request = pb.CreateApiKeyRequest(role=pb.ROLE_OPERATOR)
    assert isinstance(await fault_of(other.CreateApiKey(request)), Forbidden)


async def test_changes_and_denials_are_audited_once_and_for_ever(world, database):
    job = await submitted(world)
    await fault_of(world.stub("FleetService").ListNodes(pb.ListNodesRequest()))
    await fault_of(world.stub("JobService", None).GetJob(pb.GetJobRequest(name=job.name)))
    await world.gateway.auditor.drain()
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT * FROM gateway.audit ORDER BY id")
    found = [(it["method"], it["resource"], it["outcome"], it["tenant"]) for it in rows]
    assert sorted(found) == [
        ("FleetService.ListNodes", "", "OPERATORS_ONLY", "tenants/demo"),
        ("JobService.CreateJob", job.name, "OK", "tenants/demo"),
        ("JobService.GetJob", "", "KEY_MISSING", ""),
    ]
    for sql in ("UPDATE gateway.audit SET outcome = ''", "DELETE FROM gateway.audit"):
        with pytest.raises(asyncpg.RaiseError):
            await connection.execute(sql)
    await connection.close()


async def test_a_key_that_calls_too_often_is_told_when_to_come_back(world):
    settings = dataclasses.replace(world.settings, gateway_rate_per_s=5, gateway_rate_burst=10)
    async with (
        gateway(settings) as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as channel,
    ):
        stub = dataclasses.replace(world, channel=channel).stub("AccessService")
        calls = [stub.GetCaller(pb.GetCallerRequest()) for _ in range(40)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [fault_from_error(it) for it in answers if isinstance(it, grpc.aio.AioRpcError)]
        assert 25 <= len(refused) <= 30
        assert {it.reason for it in refused} == {"RATE_LIMITED"}
        assert all(isinstance(it, Exhausted) and it.retry_after_ms > 0 for it in refused)
        # The other gateway, and other keys, do not suffer.
        await world.stub("AccessService").GetCaller(pb.GetCallerRequest())


async def test_events_resume_after_a_restart(world):
    for number in range(1, 6):
        world.scheduler.events.append(
            pb.WatchEventsResponse(event={"sequence": number, "type": "job.x"}).event
        )
    stream = world.stub("JobService").WatchEvents(pb.WatchEventsRequest(after_sequence=1))
    seen = [(await stream.read()).event.sequence]
    world.scheduler.down = 1
    seen += [(await stream.read()).event.sequence for _ in range(3)]
    assert seen == [2, 3, 4, 5]
    stream.cancel()
