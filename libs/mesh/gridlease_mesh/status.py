"""The one mapping between a Fault and ``google.rpc.Status``, both ways.

reason, metadata, remedy  →  ErrorInfo (domain "gridlease"; metadata["remedy"])
field                     →  BadRequest, one violation
retry_after_ms            →  RetryInfo
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from gridlease_kernel import faults
from gridlease_kernel.faults import Fault

DOMAIN = "gridlease"
DETAILS_KEY = "grpc-status-details-bin"
_REMEDY = "remedy"

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_FAULTS: dict[grpc.StatusCode, type[Fault]] = {
    grpc.StatusCode.INVALID_ARGUMENT: faults.Invalid,
    grpc.StatusCode.OUT_OF_RANGE: faults.Invalid,
    grpc.StatusCode.UNIMPLEMENTED: faults.Precondition,
    grpc.StatusCode.NOT_FOUND: faults.Missing,
    grpc.StatusCode.ALREADY_EXISTS: faults.Exists,
    grpc.StatusCode.ABORTED: faults.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: faults.Precondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: faults.Exhausted,
    grpc.StatusCode.UNAUTHENTICATED: faults.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: faults.Forbidden,
    grpc.StatusCode.DEADLINE_EXCEEDED: faults.Late,
}
_FINER: dict[str, type[Fault]] = {"OverQuota": faults.OverQuota, "TooLarge": faults.TooLarge}
_KIND = "fault"  # metadata that tells two faults of one code apart


def status_from_fault(fault: Fault) -> status_pb2.Status:
    """The rich status that says everything the fault says."""
    info = error_details_pb2.ErrorInfo(reason=fault.reason, domain=DOMAIN, metadata=fault.metadata)
    if fault.remedy:
        info.metadata[_REMEDY] = fault.remedy
    if type(fault).__name__ in _FINER:
        info.metadata[_KIND] = type(fault).__name__
    status = status_pb2.Status(code=int(fault.code), message=fault.message)
    status.details.append(_packed(info))
    if fault.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=fault.field, description=fault.message, reason=fault.reason
        )
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if fault.retry_after_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(fault.retry_after_ms)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def fault_from_status(status: status_pb2.Status) -> Fault:
    """The fault that a rich status tells of; one without our details gets a generic reason."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info, bad, retry = _details(status.details)
    metadata = dict(info.metadata)
    remedy = metadata.pop(_REMEDY, "")
    kind = _FINER.get(metadata.pop(_KIND, ""), _FAULTS.get(code, faults.Unreachable))
    return kind(
        status.message or code.name,
        reason=info.reason.upper() or code.name,
        field=bad.field_violations[0].field if bad.field_violations else "",
        remedy=remedy,
        metadata=metadata,
        retry_after_ms=retry,
    )


def fault_from_error(error: grpc.aio.AioRpcError) -> Fault:
    """The fault that a failed call tells of, on either transport.

    UNKNOWN, INTERNAL, DATA_LOSS and CANCELLED read as Unreachable: whether it happened is open,
    so the caller must ask again with the same id.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return fault_from_status(status_pb2.Status.FromString(value))
    code = error.code()
    return fault_from_status(
        status_pb2.Status(code=code.value[0], message=error.details() or code.name)
    )


async def abort_with(
    context: grpc.aio.ServicerContext[object, object], status: status_pb2.Status
) -> NoReturn:
    """End the call with a rich status, on either transport."""
    await context.abort(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        status.message,
        ((DETAILS_KEY, status.SerializeToString()),),
    )


def _packed(message: error_details_pb2.ErrorInfo | object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type] # any message
    return packed


def _details(
    details: Iterable[any_pb2.Any],
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, int | None]:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_ms = None
    for detail in details:
        if detail.Unpack(retry):
            retry_after_ms = retry.retry_delay.ToMilliseconds()
        else:
            _ = detail.Unpack(info) or detail.Unpack(bad)
    return info, bad, retry_after_ms
