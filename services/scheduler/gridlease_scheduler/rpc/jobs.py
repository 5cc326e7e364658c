# ruff: noqa: ARG002, N802 - the generated base classes give names and arguments
"""JobService: jobs and events, for the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from gridlease.scheduler.v1 import job_pb2, job_pb2_grpc
from gridlease_mesh import trace

from gridlease_scheduler.cancel import Cancel
from gridlease_scheduler.explain import Explain
from gridlease_scheduler.feed import Feed
from gridlease_scheduler.jobs import Jobs
from gridlease_scheduler.ports import EventQuery
from gridlease_scheduler.preview import Preview
from gridlease_scheduler.submit import Submit
from gridlease_scheduler.wake import Wake
from gridlease_scheduler.wire import jobs as wire
from gridlease_scheduler.wire import plans, reasons

from . import pages


@dataclass(frozen=True, slots=True)
class JobUses:
    """What the job service calls."""

    submit: Submit
    cancel: Cancel
    wake: Wake
    jobs: Jobs
    feed: Feed
    explain: Explain
    plan: Preview
    defaults: wire.Defaults


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """Jobs and events, for the gateway."""

    def __init__(self, uses: JobUses) -> None:
        self._uses = uses

    async def SubmitJob(
        self, request: job_pb2.SubmitJobRequest, context: Any
    ) -> job_pb2.SubmitJobResponse:
        span = trace.current()
        order = wire.order(request, self._uses.defaults, span.header() if span else "")
        return job_pb2.SubmitJobResponse(job=wire.job(await self._uses.submit(order)))

    async def PlanJob(
        self, request: job_pb2.PlanJobRequest, context: Any
    ) -> job_pb2.PlanJobResponse:
        spec = self._uses.defaults.fill(request.spec)
        asked = wire.asked(request.tenant, request.project, spec)
        return plans.planned(await self._uses.plan(asked))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        job = await self._uses.jobs.get(request.project, request.name)
        return job_pb2.GetJobResponse(job=wire.job(job))

    async def ListJobs(
        self, request: job_pb2.ListJobsRequest, context: Any
    ) -> job_pb2.ListJobsResponse:
        limit = pages.limit(request.page_size, 50, 500)
        page = await self._uses.jobs.page(
            request.project,
            limit=limit,
            before=pages.number(request.page_token),
            active_only=request.active_only,
        )
        token = str(page[-1].number) if len(page) == limit else ""
        return job_pb2.ListJobsResponse(
            jobs=[wire.job(each) for each in page], next_page_token=token
        )

    async def CancelJob(
        self, request: job_pb2.CancelJobRequest, context: Any
    ) -> job_pb2.CancelJobResponse:
        job = await self._uses.cancel(request.project, request.name)
        return job_pb2.CancelJobResponse(job=wire.job(job))

    async def WakeJob(
        self, request: job_pb2.WakeJobRequest, context: Any
    ) -> job_pb2.WakeJobResponse:
        job = await self._uses.wake(request.project, request.name)
        return job_pb2.WakeJobResponse(job=wire.job(job))

    async def ExplainJob(
        self, request: job_pb2.ExplainJobRequest, context: Any
    ) -> job_pb2.ExplainJobResponse:
        return plans.explained(await self._uses.explain(request.project, request.name))

    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        async for job in self._uses.jobs.watch(request.project, request.name):
            yield job_pb2.WatchJobResponse(job=wire.job(job))

    async def ListEvents(
        self, request: job_pb2.ListEventsRequest, context: Any
    ) -> job_pb2.ListEventsResponse:
        limit = pages.limit(request.page_size, 100, 1_000)
        query = EventQuery(request.project, request.entity, request.after_sequence, limit)
        events = await self._uses.feed.list(query)
        return job_pb2.ListEventsResponse(events=[reasons.event(each) for each in events])

    async def WatchEvents(
        self, request: job_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[job_pb2.WatchEventsResponse]:
        events = self._uses.feed.watch(request.project, request.entity, request.after_sequence)
        async for each in events:
            yield job_pb2.WatchEventsResponse(event=reasons.event(each))
