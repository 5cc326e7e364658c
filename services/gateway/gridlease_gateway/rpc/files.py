"""A job's logs and artefacts, read from the node that ran it.

Offsets: a task's first attempt counts its bytes from 0; the output of attempt n begins at
(n - 1) * 2^40, so one number says both which attempt and where, and a client that comes back
after any restart goes on where it stood.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import grpc.aio
from google.protobuf.message import Message
from gridlease.agent.v1 import files_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import job_pb2 as types
from gridlease_kernel.faults import Fault, Missing, Precondition, Unreachable

from gridlease_gateway.calls import Call
from gridlease_gateway.inside import Inside, Patience, fault_of
from gridlease_gateway.rpc.jobs import ENDED, get_job, stream_over, watch_job

ATTEMPT_BYTES: Final = 1 << 40
_READ_PATIENCE_S: Final = 20.0
_FOLLOW_PATIENCE_S: Final = 600.0  # a node may be away longer than its agent's restart takes


class Files:
    """The methods of JobService that read files of a task."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def read_job_logs(
        self, call: Call, request: pb.ReadJobLogsRequest
    ) -> AsyncIterator[Message]:
        offset = request.offset_bytes
        patience = Patience(_FOLLOW_PATIENCE_S if request.follow else _READ_PATIENCE_S)
        ended = Patience(_READ_PATIENCE_S)  # the node of an ended job may never come back
        while call.left_s() > 0:
            job = await get_job(self._inside, call, request.name)
            if job.state not in ENDED:
                ended.progress()
            task = _task(job, request.task_index)
            if task is None or not task.lease:
                if not request.follow or job.state in ENDED:
                    return
                await self._change(call, request, "")
                continue
            base = max(task.attempt - 1, 0) * ATTEMPT_BYTES
            offset = max(offset, base)
            fault: Fault | None = None
            stream = self._logs(task, offset - base, request.follow, call.left_s())
            async with contextlib.aclosing(stream):
                async for piece in stream:
                    if isinstance(piece, Fault):
                        fault = piece
                        break
                    patience.progress()
                    ended.progress()
                    offset = base + piece.next_offset_bytes
                    yield pb.ReadJobLogsResponse(content=piece.content, next_offset_bytes=offset)
            if fault is not None:
                await (ended if job.state in ENDED else patience).bear(_passing(fault, job))
            elif not request.follow or job.state in ENDED:
                return
            else:
                await self._change(call, request, task.lease)
        raise stream_over()

    async def list_artefacts(self, call: Call, request: pb.ListArtefactsRequest) -> Message:
        task = await placed_task(self._inside, call, request.name, request.task_index)
        answer = await self._inside.ask(
            self._files(task).ListArtefacts,
            files_pb2.ListArtefactsRequest(lease=task.lease),
            call.left_s(),
            files_pb2.ListArtefactsResponse,
        )
        return pb.ListArtefactsResponse(artefacts=answer.artefacts)

    async def read_artefact(
        self, call: Call, request: pb.ReadArtefactRequest
    ) -> AsyncIterator[Message]:
        task = await placed_task(self._inside, call, request.name, request.task_index)
        inner = files_pb2.ReadArtefactRequest(lease=task.lease, path=request.path)
        patience = Patience(_READ_PATIENCE_S)
        sent = 0
        while call.left_s() > 0:
            stream = self._files(task).ReadArtefact(inner, timeout=call.left_s())
            skip = sent  # what the client has already, where the node was interrupted
            try:
                async for piece in stream:
                    fresh = piece.content[skip:]
                    skip = max(0, skip - len(piece.content))
                    if fresh:
                        patience.progress()
                        sent += len(fresh)
                        yield pb.ReadArtefactResponse(content=fresh)
                return
            except grpc.aio.AioRpcError as error:
                fault = fault_of(error, "node")
            finally:
                stream.cancel()
            await patience.bear(fault)
        raise stream_over()

    def _files(self, task: types.Task) -> Any:
        return self._inside.files_of(task.node.removeprefix("nodes/"))

    async def _logs(
        self, task: types.Task, offset_bytes: int, follow: bool, left_s: float
    ) -> AsyncGenerator[files_pb2.ReadLogsResponse | Fault, None]:
        """One lease's output; a fault as the last item where the node did not come to the end."""
        request = files_pb2.ReadLogsRequest(
            lease=task.lease, offset_bytes=offset_bytes, follow=follow
        )
        stream = self._files(task).ReadLogs(request, timeout=left_s)
        try:
            async for piece in stream:
                yield piece
        except grpc.aio.AioRpcError as error:
            yield fault_of(error, "node")
        finally:
            stream.cancel()

    async def _change(self, call: Call, request: pb.ReadJobLogsRequest, lease: str) -> None:
        """Wait until the job has ended or its task has another lease than ``lease``."""
        jobs = watch_job(self._inside, call, request.name)
        async with contextlib.aclosing(jobs):
            async for job in jobs:
                task = _task(job, request.task_index)
                if job.state in ENDED or (task is not None and task.lease not in ("", lease)):
                    return


async def placed_task(
    inside: Inside, call: Call, name: str, index: int, at: str = ""
) -> types.Task:
    """A task of a job that the caller may see, if it was ever placed.

    Args:
        at: where in the request ``name`` stands, with its dot.

    Raises:
        Missing: JOB_NOT_FOUND, TASK_NOT_FOUND.
        Precondition: NOT_PLACED_YET.
    """
    job = await get_job(inside, call, name, f"{at}name")
    task = _task(job, index)
    if task is None and index > 0:
        raise Missing(
            f"{name} has no task {index}.",
            reason="TASK_NOT_FOUND",
            field=f"{at}task_index",
            remedy="Tasks count from 0; gridlease show lists them.",
        )
    if task is None or not task.lease:
        raise Precondition(
            f"{name} has not been placed yet.",
            reason="NOT_PLACED_YET",
            field=f"{at}name",
            remedy="Wait for it, or ask why it waits: gridlease explain.",
        )
    return task


def _task(job: types.Job, index: int) -> types.Task | None:
    return next((task for task in job.tasks if task.index == index), None)


def _passing(fault: Fault, job: types.Job) -> Fault:
    """A node that does not know a fresh lease yet will soon; one of an ended job never."""
    if isinstance(fault, Missing) and job.state not in ENDED:
        return Unreachable(fault.message, reason="LOGS_NOT_YET", remedy=fault.remedy)
    return fault
