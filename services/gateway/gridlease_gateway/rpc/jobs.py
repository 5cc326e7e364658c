"""JobService: jobs and events of the key's project."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.scheduler.v1 import job_pb2
from gridlease.type.v1 import job_pb2 as types
from gridlease_kernel.faults import Fault, Invalid, Late, Missing, Unreachable
from gridlease_kernel.ids import Ids

from gridlease_gateway.budget import BudgetCheck
from gridlease_gateway.calls import Call
from gridlease_gateway.domain import names
from gridlease_gateway.domain.keys import Caller, Role
from gridlease_gateway.inside import Inside, Patience, fault_of
from gridlease_gateway.ports import AccessStore, BundleIndex

M = TypeVar("M", bound=Message)

ENDED = (types.JOB_STATE_SUCCEEDED, types.JOB_STATE_FAILED, types.JOB_STATE_CANCELLED)
_STREAM_PATIENCE_S = 60.0


def project_for(caller: Caller, name: str, field: str = "name") -> str:
    """The project through which ``caller`` may see the job ``name``.

    Raises:
        Missing: JOB_NOT_FOUND, also for another project's.
    """
    project = names.project_of_job(name)
    if project is None or (caller.role is not Role.OPERATOR and project != caller.project):
        raise names.no_job(name, field)
    return project


async def get_job(inside: Inside, call: Call, name: str, field: str = "name") -> types.Job:
    """A job that the caller may see.

    Raises:
        Missing: JOB_NOT_FOUND.
    """
    project = project_for(call.caller, name, field)
    request = job_pb2.GetJobRequest(project=project, name=name)
    try:
        answer = await inside.ask(
            inside.jobs.GetJob, request, call.left_s(), job_pb2.GetJobResponse
        )
    except Missing as error:
        raise names.no_job(name, field) from error
    return answer.job


class Jobs:
    """The methods of JobService that are about jobs and events."""

    def __init__(
        self,
        inside: Inside,
        access: AccessStore,
        bundles: BundleIndex,
        budget: BudgetCheck,
        ids: Ids,
    ) -> None:
        self._inside = inside
        self._access = access
        self._bundles = bundles
        self._budget = budget
        self._ids = ids

    async def create_job(self, call: Call, request: pb.CreateJobRequest) -> Message:
        tenant, project = await self._parent(call.caller, request.parent)
        spec = request.spec
        if spec.bundle_digest and not await self._bundles.owns(
            project.removeprefix("projects/"), spec.bundle_digest
        ):
            raise names.no_bundle(spec.bundle_digest)
        await self._budget.check(spec, call.left_s())
        inner = job_pb2.SubmitJobRequest(
            tenant=tenant,
            project=project,
            request_id=request.request_id or self._ids.new("rq"),
            spec=spec,
        )
        answer = await self._inside.ask(
            self._inside.jobs.SubmitJob, inner, call.left_s(), job_pb2.SubmitJobResponse
        )
        return pb.CreateJobResponse(job=answer.job)

    async def plan_job(self, call: Call, request: pb.PlanJobRequest) -> Message:
        tenant, project = await self._parent(call.caller, request.parent)
        inner = job_pb2.PlanJobRequest(tenant=tenant, project=project, spec=request.spec)
        answer = await self._inside.ask(
            self._inside.jobs.PlanJob, inner, call.left_s(), job_pb2.PlanJobResponse
        )
        return _as(answer, pb.PlanJobResponse)

    async def get_job(self, call: Call, request: pb.GetJobRequest) -> Message:
        return pb.GetJobResponse(job=await get_job(self._inside, call, request.name))

    async def list_jobs(self, call: Call, request: pb.ListJobsRequest) -> Message:
        _, project = await self._parent(call.caller, request.parent)
        inner = job_pb2.ListJobsRequest(
            project=project,
            page_size=request.page_size,
            page_token=request.page_token,
            active_only=request.active_only,
        )
        answer = await self._inside.ask(
            self._inside.jobs.ListJobs, inner, call.left_s(), job_pb2.ListJobsResponse
        )
        return pb.ListJobsResponse(jobs=answer.jobs, next_page_token=answer.next_page_token)

    async def cancel_job(self, call: Call, request: pb.CancelJobRequest) -> Message:
        project = project_for(call.caller, request.name)
        inner = job_pb2.CancelJobRequest(project=project, name=request.name)
        try:
            answer = await self._inside.ask(
                self._inside.jobs.CancelJob, inner, call.left_s(), job_pb2.CancelJobResponse
            )
        except Missing as error:
            raise names.no_job(request.name) from error
        return pb.CancelJobResponse(job=answer.job)

    async def wake_job(self, call: Call, request: pb.WakeJobRequest) -> Message:
        project = project_for(call.caller, request.name)
        inner = job_pb2.WakeJobRequest(project=project, name=request.name)
        try:
            answer = await self._inside.ask(
                self._inside.jobs.WakeJob, inner, call.left_s(), job_pb2.WakeJobResponse
            )
        except Missing as error:
            raise names.no_job(request.name) from error
        return pb.WakeJobResponse(job=answer.job)

    async def explain_job(self, call: Call, request: pb.ExplainJobRequest) -> Message:
        project = project_for(call.caller, request.name)
        inner = job_pb2.ExplainJobRequest(project=project, name=request.name)
        try:
            answer = await self._inside.ask(
                self._inside.jobs.ExplainJob, inner, call.left_s(), job_pb2.ExplainJobResponse
            )
        except Missing as error:
            raise names.no_job(request.name) from error
        return _as(answer, pb.ExplainJobResponse)

    async def watch_job(self, call: Call, request: pb.WatchJobRequest) -> AsyncIterator[Message]:
        async for job in watch_job(self._inside, call, request.name):
            yield pb.WatchJobResponse(job=job)

    async def list_events(self, call: Call, request: pb.ListEventsRequest) -> Message:
        inner = job_pb2.ListEventsRequest(
            project=self._events_of(call.caller),
            after_sequence=request.after_sequence,
            entity=request.entity,
            page_size=request.page_size,
        )
        answer = await self._inside.ask(
            self._inside.jobs.ListEvents, inner, call.left_s(), job_pb2.ListEventsResponse
        )
        return pb.ListEventsResponse(events=answer.events)

    async def watch_events(
        self, call: Call, request: pb.WatchEventsRequest
    ) -> AsyncIterator[Message]:
        inner = job_pb2.WatchEventsRequest(
            project=self._events_of(call.caller),
            after_sequence=request.after_sequence,
            entity=request.entity,
        )
        patience = Patience(_STREAM_PATIENCE_S)
        while call.left_s() > 0:
            stream = self._inside.jobs.WatchEvents(inner, timeout=call.left_s())
            try:
                async for answer in stream:
                    patience.progress()
                    inner.after_sequence = answer.event.sequence
                    yield pb.WatchEventsResponse(event=answer.event)
                ended: Fault = _stream_ended()
            except grpc.aio.AioRpcError as error:
                ended = fault_of(error, "scheduler")
            finally:
                stream.cancel()
            await patience.bear(ended)
        raise stream_over()

    def _events_of(self, caller: Caller) -> str:
        """A tenant's own project; an operator hears the whole platform."""
        return "" if caller.role is Role.OPERATOR else caller.own_project()

    async def _parent(self, caller: Caller, parent: str) -> tuple[str, str]:
        """Tenant and project to act in: the key's own, or the one that an operator names."""
        if caller.role is not Role.OPERATOR:
            if parent not in ("", caller.project):
                raise names.no_project(parent, "parent")
            return caller.tenant, caller.project
        if not parent:
            raise Invalid(
                "An operator's key belongs to no project.",
                reason="PARENT_MISSING",
                field="parent",
                remedy='Name one, as "projects/{project}".',
            )
        project = names.id_of(parent, "projects")
        tenant = await self._access.tenant_of(project) if project else None
        if tenant is None:
            raise names.no_project(parent, "parent")
        return f"tenants/{tenant}", parent


def _as(answer: Message, public: type[M]) -> M:
    """An answer of the scheduler as the public one of the same fields and numbers."""
    inner, outer = answer.DESCRIPTOR.fields, public.DESCRIPTOR.fields
    assert [(it.name, it.number) for it in inner] == [(it.name, it.number) for it in outer]
    return public.FromString(answer.SerializeToString())


async def watch_job(inside: Inside, call: Call, name: str) -> AsyncGenerator[types.Job, None]:
    """A job at once and after each change, until it has ended, across restarts of the scheduler.

    Raises:
        Missing: JOB_NOT_FOUND.
        Unreachable: the scheduler stayed away.
    """
    request = job_pb2.WatchJobRequest(project=project_for(call.caller, name), name=name)
    patience = Patience(_STREAM_PATIENCE_S)
    seen = -1
    while call.left_s() > 0:
        stream: Any = inside.jobs.WatchJob(request, timeout=call.left_s())
        try:
            async for answer in stream:
                patience.progress()
                if answer.job.revision > seen:
                    seen = answer.job.revision
                    yield answer.job
                if answer.job.state in ENDED:
                    return
            ended: Fault = _stream_ended()
        except grpc.aio.AioRpcError as error:
            fault = fault_of(error, "scheduler")
            if isinstance(fault, Missing):
                raise names.no_job(name) from error
            ended = fault
        finally:
            stream.cancel()
        await patience.bear(ended)
    raise stream_over()


def _stream_ended() -> Unreachable:
    return Unreachable(
        "The scheduler ended the stream.",
        reason="SCHEDULER_UNREACHABLE",
        remedy="Open it again from where it stood.",
    )


def stream_over() -> Late:
    """The stream's own deadline has come."""
    return Late(
        "The stream reached its deadline.",
        reason="DEADLINE",
        remedy="Open it again from where it stood.",
    )
