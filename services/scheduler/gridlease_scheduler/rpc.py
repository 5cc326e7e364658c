# ruff: noqa: ARG002, N802 - the generated base classes give names and arguments
"""The scheduler's services: decode, one use case, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from gridlease.scheduler.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    sync_pb2,
    sync_pb2_grpc,
)
from gridlease.type.v1 import job_pb2 as type_job_pb2
from gridlease_kernel.faults import Forbidden, Invalid
from gridlease_mesh import trace
from gridlease_mesh.context import caller_node

from . import wire
from .cancel import Cancel
from .credential import Renew, Revoke
from .enrol import CreateToken, Enrol
from .explain import Explain
from .feed import Feed
from .inventory import ReportInventory
from .jobs import Jobs
from .nodes import Fleet
from .ports import EventQuery
from .submit import Submit
from .sync import Sync


@dataclass(frozen=True, slots=True)
class JobUses:
    """What the job service calls."""

    submit: Submit
    cancel: Cancel
    jobs: Jobs
    feed: Feed
    explain: Explain
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

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        job = await self._uses.jobs.get(request.project, request.name)
        return job_pb2.GetJobResponse(job=wire.job(job))

    async def ListJobs(
        self, request: job_pb2.ListJobsRequest, context: Any
    ) -> job_pb2.ListJobsResponse:
        limit = _limit(request.page_size, 50, 500)
        page = await self._uses.jobs.page(
            request.project,
            limit=limit,
            before=_number(request.page_token),
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

    async def ExplainJob(
        self, request: job_pb2.ExplainJobRequest, context: Any
    ) -> job_pb2.ExplainJobResponse:
        found = await self._uses.explain(request.project, request.name)
        return job_pb2.ExplainJobResponse(
            state=type_job_pb2.JobState.Value(f"JOB_STATE_{found.state}"),
            reason=wire.reason(found.reason),
            nodes_ruled_out=found.ruled_out,
        )

    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        async for job in self._uses.jobs.watch(request.project, request.name):
            yield job_pb2.WatchJobResponse(job=wire.job(job))

    async def ListEvents(
        self, request: job_pb2.ListEventsRequest, context: Any
    ) -> job_pb2.ListEventsResponse:
        limit = _limit(request.page_size, 100, 1_000)
        query = EventQuery(request.project, request.entity, request.after_sequence, limit)
        events = await self._uses.feed.list(query)
        return job_pb2.ListEventsResponse(events=[wire.event(each) for each in events])

    async def WatchEvents(
        self, request: job_pb2.WatchEventsRequest, context: Any
    ) -> AsyncIterator[job_pb2.WatchEventsResponse]:
        events = self._uses.feed.watch(request.project, request.entity, request.after_sequence)
        async for each in events:
            yield job_pb2.WatchEventsResponse(event=wire.event(each))


@dataclass(frozen=True, slots=True)
class FleetUses:
    """What the fleet service calls, and what nodes are told of the mesh."""

    fleet: Fleet
    create_token: CreateToken
    enrol: Enrol
    revoke: Revoke
    node_nats_url: str
    subject_prefix: str


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Nodes and their tokens, for the gateway."""

    def __init__(self, uses: FleetUses) -> None:
        self._uses = uses

    async def ListNodes(
        self, request: fleet_pb2.ListNodesRequest, context: Any
    ) -> fleet_pb2.ListNodesResponse:
        limit = _limit(request.page_size, 100, 1_000)
        return wire.listed(await self._uses.fleet.list(limit, request.page_token), limit)

    async def GetNode(
        self, request: fleet_pb2.GetNodeRequest, context: Any
    ) -> fleet_pb2.GetNodeResponse:
        return fleet_pb2.GetNodeResponse(node=wire.node(await self._uses.fleet.get(request.name)))

    async def ListStock(
        self, request: fleet_pb2.ListStockRequest, context: Any
    ) -> fleet_pb2.ListStockResponse:
        rows = await self._uses.fleet.stock()
        return fleet_pb2.ListStockResponse(offers=[wire.offer(each) for each in rows])

    async def CreateNodeToken(
        self, request: fleet_pb2.CreateNodeTokenRequest, context: Any
    ) -> fleet_pb2.CreateNodeTokenResponse:
        made = await self._uses.create_token(request.node_id, request.site, request.ttl_ms)
        answer = fleet_pb2.CreateNodeTokenResponse(token=made.token, node=f"nodes/{made.node_id}")
        answer.expire_time.FromDatetime(made.expires_at)
        return answer

    async def EnrolNode(
        self, request: fleet_pb2.EnrolNodeRequest, context: Any
    ) -> fleet_pb2.EnrolNodeResponse:
        enrolled = await self._uses.enrol(request.token, request.public_key)
        return fleet_pb2.EnrolNodeResponse(
            node_id=enrolled.node_id,
            nats_url=self._uses.node_nats_url,
            credential_jwt=enrolled.credential,
            subject_prefix=self._uses.subject_prefix,
        )

    async def CordonNode(
        self, request: fleet_pb2.CordonNodeRequest, context: Any
    ) -> fleet_pb2.CordonNodeResponse:
        node = await self._uses.fleet.cordon(request.name, cordoned=request.cordoned)
        return fleet_pb2.CordonNodeResponse(node=wire.node(node))

    async def RevokeNode(
        self, request: fleet_pb2.RevokeNodeRequest, context: Any
    ) -> fleet_pb2.RevokeNodeResponse:
        return fleet_pb2.RevokeNodeResponse(node=wire.node(await self._uses.revoke(request.name)))


class SyncServicer(sync_pb2_grpc.SyncServiceServicer):
    """What nodes ask. Who asks is in the subject that the broker let it use."""

    def __init__(self, sync: Sync, report: ReportInventory, renew: Renew, start_by_ms: int) -> None:
        self._sync = sync
        self._report = report
        self._renew = renew
        self._start_by_ms = start_by_ms

    async def SyncNode(
        self, request: sync_pb2.SyncNodeRequest, context: Any
    ) -> sync_pb2.SyncNodeResponse:
        told = wire.observation(_node(context), request)
        return wire.desired(await self._sync(told), self._start_by_ms)

    async def ReportInventory(
        self, request: sync_pb2.ReportInventoryRequest, context: Any
    ) -> sync_pb2.ReportInventoryResponse:
        site = await self._report(_node(context), wire.inventory(request.inventory))
        return sync_pb2.ReportInventoryResponse(site=f"sites/{site}")

    async def RenewCredential(
        self, request: sync_pb2.RenewCredentialRequest, context: Any
    ) -> sync_pb2.RenewCredentialResponse:
        renewed = await self._renew(_node(context))
        return sync_pb2.RenewCredentialResponse(
            credential_jwt=renewed.credential, valid_for_ms=renewed.valid_for_ms
        )


def _node(context: Any) -> str:
    node = caller_node(context)
    if node is None:
        raise Forbidden(
            "Only nodes may call this.",
            reason="NOT_A_NODE",
            remedy="Call it with a node's own credential.",
        )
    return node


def _limit(asked: int, default: int, most: int) -> int:
    return min(asked or default, most)


def _number(token: str) -> int | None:
    if token and not token.isdecimal():
        raise Invalid(
            "This page token is not one of ours.",
            reason="BAD_PAGE_TOKEN",
            field="page_token",
            remedy="Send next_page_token of the page before, or nothing.",
        )
    return int(token) if token else None
