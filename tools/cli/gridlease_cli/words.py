"""Quantities, times and states as people read them."""

from __future__ import annotations

import datetime
import time

from google.protobuf.timestamp_pb2 import Timestamp
from gridlease.type.v1 import fleet_pb2, job_pb2, resources_pb2
from gridlease_kernel.money import Money

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def money(nano: int, currency: str = "USD") -> str:
    return str(Money(nano, currency or "USD"))


def size(count: int) -> str:
    """Bytes in the largest unit that leaves at least one.

    >>> size(80 << 30)
    '80 GB'
    """
    value, unit = float(count), 0
    while value >= 1_024 and unit < len(_UNITS) - 1:
        value, unit = value / 1_024, unit + 1
    return f"{value:.4g} {_UNITS[unit]}"


def milli(count: int) -> str:
    """Thousandths as a number.

    >>> milli(2500)
    '2.5'
    """
    return f"{count / 1_000:g}"


def span(ns: int) -> str:
    """A span of nanoseconds.

    >>> span(5_430_000_000_000)
    '1h30m30s'
    """
    seconds, rest = divmod(ns, 1_000_000_000)
    if seconds < 60:
        return f"{seconds}.{rest // 1_000_000:03d}s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)


def ago(moment: Timestamp) -> str:
    """How long ago; "-" for never."""
    if not moment.seconds:
        return "-"
    seconds = max(0, time.time_ns() - moment.ToNanoseconds()) // 1_000_000_000
    return f"{seconds}s" if seconds < 60 else span(seconds * 1_000_000_000)


def clock(moment: Timestamp) -> str:
    """The local time; "-" for never."""
    if not moment.seconds:
        return "-"
    utc = moment.ToDatetime(tzinfo=datetime.UTC)
    return utc.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def state(value: job_pb2.JobState.ValueType) -> str:
    return job_pb2.JobState.Name(value).removeprefix("JOB_STATE_")


def node_state(value: fleet_pb2.NodeState.ValueType) -> str:
    return fleet_pb2.NodeState.Name(value).removeprefix("NODE_STATE_")


def tier(value: job_pb2.Tier.ValueType) -> str:
    return job_pb2.Tier.Name(value).removeprefix("TIER_").replace("_", "-").lower()


def short(name: str) -> str:
    """The last part of a name."""
    return name.rpartition("/")[2]


def mark(emulated: bool) -> str:
    """Says of what is not real that it is not."""
    return "emulated" if emulated else ""


def accelerator(request: resources_pb2.AcceleratorRequest) -> str:
    """An accelerator request, as it is typed."""
    memory = request.memory_bytes
    parts = [request.vendor, ",".join(request.chips)]
    if memory.min or memory.max:
        low = size(memory.min) if memory.min else ""
        high = size(memory.max) if memory.max else ""
        parts.append(low if memory.min == memory.max else f"{low}..{high}")
    count = request.count
    parts.append(str(count.min) if count.min == count.max else f"{count.min}..{count.max or ''}")
    return ":".join(part.replace(" ", "") for part in parts if part)
