"""What a client does with jobs: submit, watch, read what they wrote. Streams come back."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc.aio
from gridlease.agent.v1 import files_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import fleet_pb2, job_pb2
from gridlease_kernel.faults import Fault, Unreachable
from gridlease_kernel.ids import RandomIds

from gridlease_sdk import bundle
from gridlease_sdk.channel import Connection, Patience
from gridlease_sdk.jobfile import Draft

ENDED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
_PIECE_BYTES = 256 << 10


class JobCalls:
    """The part of ``Client`` about jobs."""

    def __init__(self, connection: Connection) -> None:
        self._on = connection
        self._ids = RandomIds()

    async def submit(
        self, draft: Draft | job_pb2.JobSpec, *, request_id: str = "", project: str = ""
    ) -> job_pb2.Job:
        """Submit a job, its files first; the same ``request_id`` gives the same job."""
        spec = job_pb2.JobSpec()
        spec.CopyFrom(draft.spec if isinstance(draft, Draft) else draft)
        if isinstance(draft, Draft) and draft.files:
            spec.bundle_digest = await self.upload_bundle(bundle.build(draft.files))
        request = pb.CreateJobRequest(
            parent=project, request_id=request_id or self._ids.new("rq"), spec=spec
        )
        answer = await self._on.ask(self._on.jobs.CreateJob, request, pb.CreateJobResponse)
        return answer.job

    async def plan(
        self, draft: Draft | job_pb2.JobSpec, *, project: str = ""
    ) -> pb.PlanJobResponse:
        """What would become of a job if it were submitted now; nothing is kept."""
        spec = draft.spec if isinstance(draft, Draft) else draft
        request = pb.PlanJobRequest(parent=project, spec=spec)
        return await self._on.ask(self._on.jobs.PlanJob, request, pb.PlanJobResponse)

    async def upload_bundle(self, content: bytes) -> str:
        """Upload a tar archive; its digest."""
        patience = Patience(self._on.patience)
        while True:
            pieces = (
                pb.UploadBundleRequest(content=content[at : at + _PIECE_BYTES])
                for at in range(0, len(content), _PIECE_BYTES)
            )
            try:
                answer = await self._on.open(self._on.jobs.UploadBundle, pieces)
                return str(answer.digest)
            except grpc.aio.AioRpcError as error:
                fault = self._on.fault(error)
            await patience.bear(fault)

    async def get_job(self, name: str) -> job_pb2.Job:
        """One job."""
        request = pb.GetJobRequest(name=name)
        return (await self._on.ask(self._on.jobs.GetJob, request, pb.GetJobResponse)).job

    async def list_jobs(
        self, *, active_only: bool = False, limit: int = 50, project: str = ""
    ) -> list[job_pb2.Job]:
        """The newest jobs, at most ``limit``."""
        found: list[job_pb2.Job] = []
        request = pb.ListJobsRequest(parent=project, active_only=active_only)
        while len(found) < limit:
            request.page_size = limit - len(found)
            page = await self._on.ask(self._on.jobs.ListJobs, request, pb.ListJobsResponse)
            found.extend(page.jobs)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        return found

    async def cancel(self, name: str) -> job_pb2.Job:
        """Ask for a job's end."""
        request = pb.CancelJobRequest(name=name)
        return (await self._on.ask(self._on.jobs.CancelJob, request, pb.CancelJobResponse)).job

    async def wake(self, name: str) -> job_pb2.Job:
        """Let a service that rests be placed again."""
        request = pb.WakeJobRequest(name=name)
        return (await self._on.ask(self._on.jobs.WakeJob, request, pb.WakeJobResponse)).job

    async def explain(self, name: str) -> pb.ExplainJobResponse:
        """Why a job stands where it stands."""
        request = pb.ExplainJobRequest(name=name)
        return await self._on.ask(self._on.jobs.ExplainJob, request, pb.ExplainJobResponse)

    async def watch(self, name: str) -> AsyncGenerator[job_pb2.Job, None]:
        """A job at once and after each change, until it has ended."""
        patience = Patience(self._on.patience)
        request = pb.WatchJobRequest(name=name)
        seen = -1
        while True:
            stream = self._on.open(self._on.jobs.WatchJob, request)
            try:
                async for answer in stream:
                    patience.progress()
                    if answer.job.revision > seen:
                        seen = answer.job.revision
                        yield answer.job
                    if answer.job.state in ENDED:
                        return
                fault: Fault = _cut()
            except grpc.aio.AioRpcError as error:
                fault = self._on.fault(error)
            finally:
                stream.cancel()
            await patience.bear(fault)

    async def wait(self, name: str) -> job_pb2.Job:
        """The job once it has ended."""
        job = job_pb2.Job()
        async for job in self.watch(name):
            if job.state in ENDED:
                break
        return job

    async def logs(
        self, name: str, *, follow: bool = False, task_index: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """A job's output, without a gap or a repeat; with ``follow``, until it has ended."""
        patience = Patience(self._on.patience)
        request = pb.ReadJobLogsRequest(name=name, task_index=task_index, follow=follow)
        while True:
            stream = self._on.open(self._on.jobs.ReadJobLogs, request)
            try:
                async for answer in stream:
                    patience.progress()
                    request.offset_bytes = answer.next_offset_bytes
                    yield answer.content
                return
            except grpc.aio.AioRpcError as error:
                fault = self._on.fault(error)
            finally:
                stream.cancel()
            await patience.bear(fault)

    async def list_artefacts(self, name: str, *, task_index: int = 0) -> list[files_pb2.Artefact]:
        """The files that a job left."""
        request = pb.ListArtefactsRequest(name=name, task_index=task_index)
        answer = await self._on.ask(self._on.jobs.ListArtefacts, request, pb.ListArtefactsResponse)
        return list(answer.artefacts)

    async def read_artefact(
        self, name: str, path: str, *, task_index: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """One of those files, in pieces."""
        patience = Patience(self._on.patience)
        request = pb.ReadArtefactRequest(name=name, task_index=task_index, path=path)
        got = 0
        while True:
            stream = self._on.open(self._on.jobs.ReadArtefact, request)
            skip = got
            try:
                async for answer in stream:
                    fresh = answer.content[skip:]
                    skip = max(0, skip - len(answer.content))
                    if fresh:
                        patience.progress()
                        got += len(fresh)
                        yield fresh
                return
            except grpc.aio.AioRpcError as error:
                fault = self._on.fault(error)
            finally:
                stream.cancel()
            await patience.bear(fault)

    async def list_events(
        self, *, after: int = 0, entity: str = "", limit: int = 100
    ) -> list[fleet_pb2.Event]:
        """Events after a sequence number, in order."""
        request = pb.ListEventsRequest(after_sequence=after, entity=entity, page_size=limit)
        answer = await self._on.ask(self._on.jobs.ListEvents, request, pb.ListEventsResponse)
        return list(answer.events)

    async def watch_events(
        self, *, after: int = 0, entity: str = ""
    ) -> AsyncGenerator[fleet_pb2.Event, None]:
        """Events after a sequence number, and on as they happen."""
        patience = Patience(self._on.patience)
        request = pb.WatchEventsRequest(after_sequence=after, entity=entity)
        while True:
            stream = self._on.open(self._on.jobs.WatchEvents, request)
            try:
                async for answer in stream:
                    patience.progress()
                    request.after_sequence = answer.event.sequence
                    yield answer.event
                fault: Fault = _cut()
            except grpc.aio.AioRpcError as error:
                fault = self._on.fault(error)
            finally:
                stream.cancel()
            await patience.bear(fault)


def _cut() -> Unreachable:
    return Unreachable(
        "The platform ended the stream.",
        reason="STREAM_CUT",
        remedy="It is opened again from where it stood.",
    )
