"""gRPC's types without its transport: what the mesh uses of them is as it was."""

from __future__ import annotations

import json
import subprocess
import sys

_SAY = """
import json, sys
if sys.argv[1] == "light":
    from gridlease_agent import light_grpc
    light_grpc.leave_out_transport()
    assert light_grpc.is_left_out()
import grpc, grpc.aio
print(json.dumps([
    [str(code) for code in grpc.StatusCode], [code.value for code in grpc.StatusCode],
    [state.value for state in grpc.ChannelConnectivity], [int(c) for c in grpc.Compression],
    list(grpc.aio.Metadata(("a", "b"))), bool(grpc.aio.EOF),
    issubclass(grpc.aio.AbortError, grpc.aio.BaseError),
    issubclass(grpc.aio.UsageError, grpc.aio.BaseError),
    str(grpc.aio.AioRpcError(grpc.StatusCode.ABORTED, None, None, "why").code()),
]))
if sys.argv[1] == "light":
    import gridlease_agent.core, gridlease_mesh.server, gridlease_mesh.channel
    assert not any("cygrpc" in line for line in open("/proc/self/maps"))
    try:
        grpc.aio.insecure_channel("127.0.0.1:1")
    except RuntimeError as refused:
        assert "transport is left out" in str(refused)
    else:
        raise SystemExit("a channel was made")
"""


def _told(how: str) -> object:
    command = [sys.executable, "-c", _SAY, how]
    said = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    return json.loads(said.stdout)


def test_the_types_are_the_same() -> None:
    assert _told("light") == _told("whole")
