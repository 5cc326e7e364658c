"""What a node measures at one instant, as plain values: identity, and columns of readings.

A column has one whole number a row: a device or a lease. The host has one number a metric.
``quality`` has one byte (a ``Quality``) for each value, column after column.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from gridlease_kernel.faults import Invalid

MAX_DEVICES = 1024
MAX_LEASES = 4096
MAX_VALUE = (1 << 62) - 1  # the difference of two fits 64 bits

Column = tuple[int, ...]


class Quality(enum.IntEnum):
    """What a number is worth; the numbers are the wire's."""

    ABSENT = 0  # no reading: the value means nothing
    MEASURED = 1
    DERIVED = 2  # computed from what was read
    STALE = 3  # the last reading; a new one was not to be had
    EMULATED = 4
    SUSPECT = 5  # read, and contradicted by another reading


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Who one device is."""

    id: str
    chip: str = ""
    vendor: str = ""
    serial: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What changes seldom: the rows that the columns have."""

    hostname: str = ""
    agent_version: str = ""
    boot_id: str = ""
    devices: tuple[DeviceIdentity, ...] = ()
    leases: tuple[str, ...] = ()


class DeviceReadings(NamedTuple):
    """Of devices, in the order of the identity. An empty column reads as zeros."""

    utilisation_milli: Column = ()
    memory_used_bytes: Column = ()
    power_mw: Column = ()
    temperature_milli_c: Column = ()
    energy_mj: Column = ()
    core_clock_mhz: Column = ()
    memory_clock_mhz: Column = ()
    quality: bytes = b""


class HostReadings(NamedTuple):
    """Of the host."""

    cpu_ns: int = 0
    memory_used_bytes: int = 0
    network_received_bytes: int = 0
    network_sent_bytes: int = 0
    disk_used_bytes: int = 0
    power_mw: int = 0
    temperature_milli_c: int = 0
    quality: bytes = b""


class LeaseReadings(NamedTuple):
    """Of leases' cgroups, in the order of the identity."""

    cpu_ns: Column = ()
    memory_used_bytes: Column = ()
    memory_peak_bytes: Column = ()
    read_bytes: Column = ()
    written_bytes: Column = ()
    processes: Column = ()
    quality: bytes = b""


Table = DeviceReadings | LeaseReadings
Readings = Table | HostReadings


def quality_of(readings: Readings, column: str, row: int = 0) -> Quality:
    """What one value is worth."""
    rows = len(readings.quality) // (len(readings._fields) - 1)
    return Quality(readings.quality[readings._fields.index(column) * rows + row])


class Sample(NamedTuple):
    """Everything at one instant. Make it with ``sample``, which checks and completes it."""

    time_unix_ms: int
    identity: NodeIdentity
    devices: DeviceReadings
    host: HostReadings
    leases: LeaseReadings


def sample(
    *,
    time_unix_ms: int,
    identity: NodeIdentity,
    devices: DeviceReadings | None = None,
    host: HostReadings | None = None,
    leases: LeaseReadings | None = None,
) -> Sample:
    """A checked sample; columns and qualities left out are filled with zeros and ABSENT.

    Raises:
        Invalid: rows do not match the identity, or a value is beyond 62 bits.
    """
    if len(identity.devices) > MAX_DEVICES or len(identity.leases) > MAX_LEASES:
        raise _bad(f"A report has at most {MAX_DEVICES} devices and {MAX_LEASES} leases.")
    if not 0 <= time_unix_ms <= MAX_VALUE:
        raise _bad(f"The time {time_unix_ms} is out of range.")
    return Sample(
        time_unix_ms,
        identity,
        DeviceReadings._make(_complete(devices or DeviceReadings(), len(identity.devices))),
        _complete_host(host or HostReadings()),
        LeaseReadings._make(_complete(leases or LeaseReadings(), len(identity.leases))),
    )


def _complete(readings: Table, rows: int) -> list[Column | bytes]:
    filled: list[Column | bytes] = []
    for name, column in zip(readings._fields[:-1], readings[:-1], strict=True):
        if column and (len(column) != rows or max(map(abs, column)) > MAX_VALUE):
            raise _bad(f"{name} has {len(column)} values for {rows} rows, or one beyond 62 bits.")
        filled.append(tuple(column) or (0,) * rows)
    return [*filled, _qualities(readings.quality, len(filled) * rows)]


def _complete_host(host: HostReadings) -> HostReadings:
    values = host[:-1]
    if max(map(abs, values)) > MAX_VALUE:
        raise _bad("A reading of the host is beyond 62 bits.")
    return HostReadings(*values, _qualities(host.quality, len(values)))


def _qualities(given: bytes, cells: int) -> bytes:
    if not given:
        return bytes(cells)
    if len(given) != cells or max(given) > max(Quality):
        raise _bad(f"{len(given)} qualities for {cells} values, or an unknown one.")
    return given


def _bad(message: str) -> Invalid:
    return Invalid(
        message,
        reason="BAD_SAMPLE",
        field="sample",
        remedy="Give each column one whole number a row, or leave the column out.",
    )
