"""Checks each request against the rules in its proto, before the servicer sees it.

Needs the ``protovalidate`` package, so only services import this module; agents do not.
"""

from __future__ import annotations

import functools
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from gridlease_kernel.faults import Code

from gridlease_mesh import interceptors, status

_REASON = "RULE_VIOLATED"


@functools.cache
def _validator() -> Any:
    import protovalidate  # noqa: PLC0415 - a heavy extension, loaded by who validates

    return protovalidate.Validator()


def violations_of(message: Any) -> status_pb2.Status | None:
    """INVALID_ARGUMENT with one field violation for each broken rule, or None if all hold."""
    found = _validator().collect_violations(message)
    if not found:
        return None
    fields = [_violation(each) for each in found]
    first = fields[0]
    answer = status_pb2.Status(
        code=int(Code.INVALID_ARGUMENT), message=f"{first.field}: {first.description}"
    )
    info = error_details_pb2.ErrorInfo(
        reason=_REASON,
        domain=status.DOMAIN,
        metadata={"remedy": "Correct the field and send the request again."},
    )
    for detail in (info, error_details_pb2.BadRequest(field_violations=fields)):
        packed = any_pb2.Any()
        packed.Pack(detail)
        answer.details.append(packed)
    return answer


def _violation(violation: Any) -> error_details_pb2.BadRequest.FieldViolation:
    proto = violation.proto
    return error_details_pb2.BadRequest.FieldViolation(
        field=_path(proto.field), description=proto.message or proto.rule_id, reason=_REASON
    )


def _path(path: Any) -> str:
    """``spec.resources[2].gpu`` for a field path."""
    text = ""
    for element in path.elements:
        text += ("." if text else "") + element.field_name
        if element.subscript is not None:
            text += f"[{element.subscript.value}]"
    return text


class ValidateRequests(grpc.aio.ServerInterceptor):
    """Refuses requests that break the rules of their proto."""

    async def intercept_service(
        self,
        continuation: interceptors.Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        method = handler_call_details.method
        return interceptors.rewrap(handler, method, before=_refuse, on_error=None)


async def _refuse(request: Any, context: Any) -> None:
    answer = violations_of(request)
    if answer is not None:
        await status.abort_with(context, answer)
