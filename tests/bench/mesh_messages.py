"""What the bench of the mesh sends: as protobuf and as JSON, the same things."""

from google.protobuf import json_format

from tests.bench.wire import bench_pb2

SMALL = "hello, world"  # 14 bytes as protobuf


def ping():
    return bench_pb2.PingRequest(text=SMALL)


def report():
    """64 devices, as plain rows with names."""
    return bench_pb2.ReportRequest(
        node="node-00ab",
        time_unix_ms=1_795_000_000_000,
        devices=[
            bench_pb2.DeviceRow(
                id=f"gpu-{index}",
                uuid=f"GPU-5f3a1c9e-{index:04d}-4a6b-8c7d-{index:012d}",
                chip="A100-80GB",
                vendor="nvidia",
                bus_address=f"0000:{index:02x}:00.0",
                driver="550.54.15",
                lease=f"ls-01jd{index:010d}",
                utilisation_milli=900 + index,
                memory_used_bytes=(60 << 30) + index,
                memory_total_bytes=80 << 30,
                power_mw=300_000 + index,
                power_limit_mw=400_000,
                temperature_milli_c=61_000 + index,
                energy_mj=123_456_789_000 + index,
                core_clock_mhz=1410,
                memory_clock_mhz=1593,
                received_bytes=98_765_432_100 + index,
                sent_bytes=98_765_432_100 - index,
            )
            for index in range(64)
        ],
    )


def plain(message):
    """A message as JSON libraries take it, with the proto's own names and whole numbers."""
    found = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return _numbers(found)


def _numbers(value):
    """The mapping writes 64-bit numbers as strings; a JSON service would write numbers."""
    if isinstance(value, dict):
        return {
            key: int(each) if isinstance(each, str) and each.isdigit() else _numbers(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return value
