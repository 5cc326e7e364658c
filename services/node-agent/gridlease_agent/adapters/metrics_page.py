"""The node's newest sample for Prometheus: a page on the loopback interface.

Names follow OpenTelemetry's hardware conventions (``hw.gpu.*``, ``hw.*``), dots as underscores.
Values that are absent are left out, never shown as 0; the label ``quality`` says what one is worth.

Source: OpenTelemetry semantic conventions, "Hardware metrics"; Prometheus text format 0.0.4.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from gridlease_mesh.telemetry_sample import Quality, Readings, Sample, quality_of

_REQUEST_S = 5.0
_MOST_BYTES = 8_192
_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class _Metric(NamedTuple):
    column: str
    name: str
    kind: str
    scale: float
    help: str


_DEVICES = (
    _Metric("utilisation_milli", "hw_gpu_utilization_ratio", "gauge", 1e-3, "Share of time busy"),
    _Metric("memory_used_bytes", "hw_gpu_memory_usage_bytes", "gauge", 1, "Memory in use"),
    _Metric("power_mw", "hw_power_watts", "gauge", 1e-3, "Power drawn"),
    _Metric("temperature_milli_c", "hw_temperature_celsius", "gauge", 1e-3, "Temperature"),
    _Metric("energy_mj", "hw_energy_joules_total", "counter", 1e-3, "Energy since it was counted"),
)  # fmt: skip
_HOST = (
    _Metric("cpu_ns", "hw_host_cpu_seconds_total", "counter", 1e-9, "CPU time used by all"),
    _Metric("memory_used_bytes", "hw_host_memory_usage_bytes", "gauge", 1, "Memory in use"),
    _Metric("network_received_bytes", "hw_host_network_received_bytes_total", "counter", 1,
            "Received"),
    _Metric("network_sent_bytes", "hw_host_network_sent_bytes_total", "counter", 1, "Sent"),
    _Metric("disk_used_bytes", "hw_host_disk_usage_bytes", "gauge", 1, "Disk in use"),
    _Metric("power_mw", "hw_host_power_watts", "gauge", 1e-3, "Power drawn"),
    _Metric("temperature_milli_c", "hw_host_temperature_celsius", "gauge", 1e-3, "Temperature"),
)  # fmt: skip
_LEASES = (
    _Metric("cpu_ns", "gridlease_lease_cpu_seconds_total", "counter", 1e-9, "CPU time used"),
    _Metric("memory_used_bytes", "gridlease_lease_memory_bytes", "gauge", 1, "Memory in use"),
    _Metric("read_bytes", "gridlease_lease_read_bytes_total", "counter", 1, "Read from disks"),
    _Metric("written_bytes", "gridlease_lease_written_bytes_total", "counter", 1,
            "Written to disks"),
    _Metric("processes", "gridlease_lease_processes", "gauge", 1, "Processes and threads"),
)  # fmt: skip


def page(taken: Sample) -> str:
    """A sample as Prometheus reads it."""
    devices = [
        {"hw_id": x.id, "hw_name": x.chip, "hw_vendor": x.vendor} for x in taken.identity.devices
    ]
    leases = [{"lease": lease} for lease in taken.identity.leases]
    lines = [
        *_lines(_DEVICES, taken.devices, devices),
        *_lines(_HOST, taken.host, [{}]),
        *_lines(_LEASES, taken.leases, leases),
    ]
    return "\n".join(lines) + "\n"


def _lines(
    metrics: tuple[_Metric, ...], readings: Readings, labels: list[dict[str, str]]
) -> Iterator[str]:
    for metric in metrics:
        column = getattr(readings, metric.column)
        values = column if isinstance(column, tuple) else (column,)
        shown = []
        for row, value in enumerate(values):
            quality = quality_of(readings, metric.column, row)
            if quality is not Quality.ABSENT:
                given = labels[row] | {"quality": quality.name.lower()}
                text = ",".join(f'{key}="{one.translate(_ESCAPED)}"' for key, one in given.items())
                shown.append(f"{metric.name}{{{text}}} {value * metric.scale:.12g}")
        if shown:
            yield f"# HELP {metric.name} {metric.help}."
            yield f"# TYPE {metric.name} {metric.kind}"
            yield from shown


class MetricsPage:
    """Serves the newest sample at ``/metrics``; one request a connection."""

    def __init__(self) -> None:
        self._newest: Sample | None = None

    def offer(self, taken: Sample) -> None:
        """Show this one from now on; it becomes text only when somebody asks."""
        self._newest = taken

    async def serve(self, port: int, host: str = "127.0.0.1") -> asyncio.Server:
        """Listen. Raises OSError where the port is taken."""
        return await asyncio.start_server(self._answer, host, port, limit=_MOST_BYTES)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response(head.split(b" ", 2)))
                await writer.drain()
        writer.close()

    def _response(self, words: list[bytes]) -> bytes:
        status, body = "404 Not Found", "Only GET /metrics is served here.\n"
        if words[0] == b"GET" and words[1:2] == [b"/metrics"]:
            status, body = "200 OK", page(self._newest) if self._newest is not None else ""
        content = body.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("ascii") + content
