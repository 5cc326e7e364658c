"""Requests that break a rule of their proto never reach the servicer, on either transport."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from gridlease.type.v1 import job_pb2
from gridlease_kernel.faults import Invalid
from gridlease_mesh import validation
from gridlease_mesh.interceptors import FaultsToStatus
from gridlease_mesh.status import DETAILS_KEY, fault_from_error

from tests.integration.mesh.conftest import TRANSPORTS
from tests.integration.mesh.echo import echo_pb2


def broken():
    return job_pb2.JobSpec(priority=101, display_name="UPPER", commands=["true", ""])


def test_each_broken_rule_names_its_field():
    status = validation.violations_of(broken())
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    fields = {violation.field for violation in bad.field_violations}
    assert {"priority", "display_name", "resources", "commands[1]"} <= fields


class _OtherRequest(grpc.aio.ServerInterceptor):
    """Stands the broken message in for the question: the echo's own proto has no rules."""

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)
        kind = grpc.unary_unary_rpc_method_handler
        return kind(handler.unary_unary, lambda _raw: broken(), handler.response_serializer)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_caller_gets_a_typed_refusal(serve, transport):
    chain = [_OtherRequest(), FaultsToStatus(), validation.ValidateRequests()]
    pair = await serve(transport, chain)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pair.stub.Say(echo_pb2.SayRequest(), timeout=5.0)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not pair.echo.started.is_set()
    fault = fault_from_error(caught.value)
    assert type(fault) is Invalid
    assert fault.reason == "RULE_VIOLATED"
    assert fault.field
    assert fault.remedy
    raw = dict(caught.value.trailing_metadata())[DETAILS_KEY]
    assert len(status_pb2.Status.FromString(raw).details) == 2


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_keeps_the_rules_passes(serve, transport):
    pair = await serve(transport, [FaultsToStatus(), validation.ValidateRequests()])
    assert (await pair.stub.Say(echo_pb2.SayRequest(text="x"), timeout=5.0)).text == "x"
