"""The same client without async: a private event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from typing import Any, Self, TypeVar

from gridlease.agent.v1 import files_pb2
from gridlease.gateway.v1 import gateway_pb2 as pb
from gridlease.type.v1 import fleet_pb2, job_pb2, money_pb2, report_pb2

from gridlease_sdk.client import Client
from gridlease_sdk.jobfile import Draft

T = TypeVar("T")
_JOIN_S = 10.0


class SyncClient:
    """What ``Client`` does, call by call; what has no method here goes through ``run``.

    with SyncClient.from_env() as client:
        job = client.wait(client.submit(draft).name)
        nodes = client.run(client.wrapped.list_nodes())
    """

    def __init__(self, make: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def made() -> Client:
            client = make()
            assert isinstance(client, Client), client
            return client

        try:
            self.wrapped = self.run(made())
        except BaseException:
            self._end()
            raise

    @classmethod
    def connect(cls, endpoint: str, api_key: str, **options: Any) -> Self:
        """As ``Client.connect``."""
        return cls(lambda: Client.connect(endpoint, api_key, **options))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ, *, operator: bool = False) -> Self:
        """As ``Client.from_env``."""
        return cls(lambda: Client.from_env(environ, operator=operator))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and the thread."""
        self.run(self.wrapped.close())
        self._end()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine of the wrapped client."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def submit(self, draft: Draft | job_pb2.JobSpec, *, request_id: str = "") -> job_pb2.Job:
        return self.run(self.wrapped.submit(draft, request_id=request_id))

    def plan(self, draft: Draft | job_pb2.JobSpec) -> pb.PlanJobResponse:
        return self.run(self.wrapped.plan(draft))

    def get_job(self, name: str) -> job_pb2.Job:
        return self.run(self.wrapped.get_job(name))

    def list_jobs(self, *, active_only: bool = False, limit: int = 50) -> list[job_pb2.Job]:
        return self.run(self.wrapped.list_jobs(active_only=active_only, limit=limit))

    def cancel(self, name: str) -> job_pb2.Job:
        return self.run(self.wrapped.cancel(name))

    def wake(self, name: str) -> job_pb2.Job:
        return self.run(self.wrapped.wake(name))

    def explain(self, name: str) -> pb.ExplainJobResponse:
        return self.run(self.wrapped.explain(name))

    def watch(self, name: str) -> Iterator[job_pb2.Job]:
        return self._each(self.wrapped.watch(name))

    def wait(self, name: str) -> job_pb2.Job:
        return self.run(self.wrapped.wait(name))

    def logs(self, name: str, *, follow: bool = False) -> Iterator[bytes]:
        return self._each(self.wrapped.logs(name, follow=follow))

    def list_artefacts(self, name: str) -> list[files_pb2.Artefact]:
        return self.run(self.wrapped.list_artefacts(name))

    def read_artefact(self, name: str, path: str) -> Iterator[bytes]:
        return self._each(self.wrapped.read_artefact(name, path))

    def list_offers(self, *, chip: str = "") -> list[fleet_pb2.Offer]:
        return self.run(self.wrapped.list_offers(chip=chip))

    def quote(self, draft: Draft | job_pb2.JobSpec, *, duration_ms: int = 0) -> money_pb2.Quote:
        return self.run(self.wrapped.quote(draft, duration_ms=duration_ms))

    def balance(self) -> money_pb2.Balance:
        return self.run(self.wrapped.balance())

    def list_usage(self, *, job: str = "") -> list[money_pb2.UsageLine]:
        return self.run(self.wrapped.list_usage(job=job))

    def get_job_cost(self, job: str) -> report_pb2.JobCost:
        return self.run(self.wrapped.get_job_cost(job))

    def create_invoice(self, *, job: str = "") -> money_pb2.Invoice:
        return self.run(self.wrapped.create_invoice(job=job))

    def _each(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        async def following() -> tuple[T, ...]:
            async for item in items:
                return (item,)
            return ()

        async def close() -> None:
            await items.aclose()

        try:
            while found := self.run(following()):
                yield found[0]
        finally:
            self.run(close())

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_JOIN_S)
        if not self._thread.is_alive():
            self._loop.close()
