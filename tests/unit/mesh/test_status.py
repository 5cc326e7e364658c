"""Faults cross the wire whole."""

import grpc
import pytest
from google.rpc import status_pb2
from gridlease_kernel import faults
from gridlease_mesh import status
from hypothesis import given
from hypothesis import strategies as st

KINDS = [
    faults.Invalid,
    faults.Missing,
    faults.Exists,
    faults.Conflict,
    faults.Precondition,
    faults.Exhausted,
    faults.OverQuota,
    faults.TooLarge,
    faults.Unauthenticated,
    faults.Forbidden,
    faults.Late,
    faults.Unreachable,
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    st.sampled_from(KINDS),
    TEXT.filter(bool),
    st.sampled_from(["", "spec.resources.gpu"]),
    TEXT,
    st.dictionaries(TEXT.filter(lambda k: k not in ("remedy", "fault")), TEXT, max_size=3),
    st.none() | st.integers(0, 10**9),
)
def test_round_trip(kind, message, field, remedy, metadata, retry_after_ms):
    sent = kind(
        message,
        reason="BECAUSE",
        field=field,
        remedy=remedy,
        metadata=metadata,
        retry_after_ms=retry_after_ms,
    )
    wire = status.status_from_fault(sent).SerializeToString()
    got = status.fault_from_status(status_pb2.Status.FromString(wire))
    assert type(got) is kind
    assert vars(got) == vars(sent)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_reads_as_some_fault(code):
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="d")
    fault = status.fault_from_error(error)
    assert fault.reason == code.name
    assert fault.message == "d"
