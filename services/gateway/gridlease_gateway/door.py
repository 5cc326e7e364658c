"""The way of every call: authenticate, count, authorise, check, run, audit.

Front ends (gRPC now, REST later) hand calls in here; none of them can skip a step.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from gridlease_kernel.faults import Fault, Forbidden, Invalid, Late, Unauthenticated
from gridlease_mesh import status, validation

from gridlease_gateway.audit import Auditor
from gridlease_gateway.calls import Call, Opening
from gridlease_gateway.domain import keys
from gridlease_gateway.domain.keys import NOBODY, Role
from gridlease_gateway.guard import Guard
from gridlease_gateway.methods import Method


class RuleBroken(Invalid):
    """The request breaks rules of its proto; ``rich`` names every field."""

    def __init__(self, rich: status_pb2.Status) -> None:
        fault = status.fault_from_status(rich)
        super().__init__(fault.message, reason=fault.reason, field=fault.field, remedy=fault.remedy)
        self.rich = rich


class Door:
    """Runs calls of the method table."""

    def __init__(self, guard: Guard, auditor: Auditor, *, call_s: float, stream_s: float) -> None:
        self._guard = guard
        self._auditor = auditor
        self._call_s = call_s
        self._stream_s = stream_s

    async def unary(self, method: Method, payload: bytes, opening: Opening) -> Message:
        """One answer to one request.

        Raises:
            Fault: what went wrong.
        """
        call = await self._admit(method, opening)
        request: Message | None = None
        try:
            request = _decode(method, payload)
            async with _deadline(call):
                answer: Message = await method.handler(call, request)
        except Fault as fault:
            self._failed(method, call, request, fault)
            raise
        await self._done(method, call, request, answer)
        return answer

    async def stream(
        self, method: Method, payload: bytes, opening: Opening
    ) -> AsyncIterator[Message]:
        """Many answers to one request.

        Raises:
            Fault: what went wrong.
        """
        call = await self._admit(method, opening)
        request = _decode(method, payload)
        with self._guard.streaming(call.caller):
            answers = method.handler(call, request)
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    yield answer

    async def upload(
        self, method: Method, payloads: AsyncIterator[bytes], opening: Opening
    ) -> Message:
        """One answer to many requests.

        Raises:
            Fault: what went wrong.
        """
        call = await self._admit(method, opening)
        try:
            with self._guard.streaming(call.caller):
                async with _deadline(call):
                    pieces = (_decode(method, it) async for it in payloads)
                    answer: Message = await method.handler(call, pieces)
        except Fault as fault:
            self._failed(method, call, None, fault)
            raise
        await self._done(method, call, None, answer)
        return answer

    async def session(
        self, method: Method, payloads: AsyncIterator[bytes], opening: Opening
    ) -> AsyncGenerator[Message, None]:
        """Many answers to many requests; audited once it stands, before its first answer.

        Raises:
            Fault: what went wrong.
        """
        call = await self._admit(method, opening)
        first: Message | None = None
        kept = False

        async def pieces() -> AsyncIterator[Message]:
            nonlocal first
            async for payload in payloads:
                request = _decode(method, payload)
                first = first or request
                yield request

        try:
            with self._guard.streaming(call.caller):
                answers = method.handler(call, pieces())
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        if not kept:
                            kept = True
                            await self._done(method, call, first, answer)
                        yield answer
        except Fault as fault:
            if not kept:
                self._failed(method, call, first, fault)
            raise

    async def _admit(self, method: Method, opening: Opening) -> Call:
        caller = NOBODY
        try:
            if method.rule.role is not Role.ANYONE:
                caller = await self._guard.authenticate(opening.metadata.get("authorization", ""))
            self._guard.spend(caller, opening.peer)
            keys.allow(caller, method.rule.role)
        except (Unauthenticated, Forbidden) as fault:
            self._auditor.note(opening, caller, "", fault.reason)
            raise
        limit_s = self._stream_s if method.server_streaming else self._call_s
        left_s = limit_s if opening.left_s is None else min(opening.left_s, self._stream_s)
        return Call(caller, opening, asyncio.get_running_loop().time() + left_s)

    def _failed(self, method: Method, call: Call, request: Message | None, fault: Fault) -> None:
        denied = isinstance(fault, (Unauthenticated, Forbidden))
        if method.rule.mutating or denied:
            resource = _resource(request)
            self._auditor.note(call.opening, call.caller, resource, fault.reason)

    async def _done(
        self, method: Method, call: Call, request: Message | None, answer: Message
    ) -> None:
        """A change is answered only when its audit row is kept; a retry with the same id heals."""
        if method.rule.mutating:
            resource = _resource(answer) or _resource(request)
            await self._auditor.keep(call.opening, call.caller, resource)


def _decode(method: Method, payload: bytes) -> Message:
    try:
        request = method.request.FromString(payload)
    except DecodeError as error:
        raise Invalid(
            f"The request is not a {method.request.DESCRIPTOR.full_name}.",
            reason="MALFORMED_REQUEST",
            remedy="Encode it with the published protos.",
        ) from error
    broken = validation.violations_of(request)
    if broken is not None:
        raise RuleBroken(broken)
    if b"\0" in payload:  # most such bytes are numbers; only then is it worth a look
        _refuse_zeros(request, "")
    return request


def _refuse_zeros(message: Message, path: str) -> None:
    """No text may hold a zero character: databases and command lines end there."""
    for field, value in message.ListFields():
        where = f"{path}{field.name}"
        for item in value.items() if isinstance(value, Mapping) else _each(value):
            if isinstance(item, Message):
                _refuse_zeros(item, f"{where}.")
            elif any("\0" in it for it in _texts(item)):
                raise Invalid(
                    f"{where} holds a zero character.",
                    reason="ZERO_CHARACTER",
                    field=where,
                    remedy="Take the zero character out.",
                )


def _texts(item: Any) -> list[str]:
    """The texts of a value, or of a map's pair."""
    return [it for it in (item if isinstance(item, tuple) else (item,)) if isinstance(it, str)]


def _each(value: Any) -> Iterable[Any]:
    return (value,) if isinstance(value, (str, bytes, int, bool, Message)) else value


@contextlib.asynccontextmanager
async def _deadline(call: Call) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(call.deadline_s):
            yield
    except TimeoutError as error:
        raise Late(
            "The call took longer than its deadline.",
            reason="DEADLINE",
            remedy="Try again, with the same request_id.",
        ) from error


def _resource(message: Message | None) -> str:
    """The name of what a message is about: its own, or that of the thing that it holds."""
    if message is None:
        return ""
    fields = message.DESCRIPTOR.fields_by_name
    for name in (*_HOLDS, *_NAMES):
        value: Any = getattr(message, name) if name in fields else ""
        if isinstance(value, Message):
            value = next((it for key in _OWN if (it := getattr(value, key, ""))), "")
        if value:
            return str(value)
    return ""


_NAMES = ("name", "node", "digest", "parent", "tenant", "project", "node_id", "job", "tenant_id")
_HOLDS = (
    "start",
    "job", "invoice", "api_key", "price", "balance", "node", "quota", "share", "site",
    "reservation",
)  # fmt: skip
_OWN = ("name", "tenant", "project")
