"""The bytes of a node's reports: pure, with the memory that differences need on both sides.

Now and then a *key report* carries the identity and all values. Every other report builds on the
last key report and on nothing else, so that it can be read whatever was lost between: energy,
sizes and times are sent less the key's, the rest as they are (it is as short, and faster to
read), and a column that equals the key's takes no bytes. Losing a key report alone makes the next
ones unreadable: the reader then asks for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import sub

from google.protobuf.message import DecodeError
from gridlease.telemetry.v1 import telemetry_pb2

from gridlease_mesh.telemetry_report import NO_HOST, RELATIVE, BadReport, Report, Section
from gridlease_mesh.telemetry_sample import HostReadings, NodeIdentity, Sample, Table

KEY_EVERY = 60  # reports
MAX_REPORT_BYTES = 512 << 10
_parse: Callable[[bytes], telemetry_pb2.NodeReport] = telemetry_pb2.NodeReport.FromString


class Encoder:
    """The sending side of one stream."""

    def __init__(self, stream: int, *, key_every: int = KEY_EVERY) -> None:
        assert key_every > 0, key_every
        self._stream = stream
        self._key_every = key_every
        self._key: Sample | None = None
        self._key_sequence = 0
        self._since_key = 0

    def ask_key(self) -> None:
        """Make the next report a key report."""
        self._key = None

    def encode(self, taken: Sample, *, sequence: int, dropped: int) -> bytes:
        """The bytes of a sample; sequences only grow."""
        key = self._key
        report = telemetry_pb2.NodeReport(
            stream=self._stream,
            sequence=sequence,
            dropped=dropped,
            time_unix_ms=taken.time_unix_ms,
        )
        if key is None or self._since_key >= self._key_every or key.identity != taken.identity:
            self._key, self._key_sequence, self._since_key = taken, sequence, 0
            key = None
            report.identity.CopyFrom(_identity_out(taken.identity))
        self._since_key += 1
        report.key = self._key_sequence
        _fill(report.devices, taken.devices, key and key.devices)
        _fill_host(report.host, taken.host, key.host if key is not None else NO_HOST)
        _fill(report.leases, taken.leases, key and key.leases)
        return report.SerializeToString()


def _fill(section: Section, taken: Table, key: Table | None) -> None:
    """Write the columns that differ from the key's (or from zero)."""
    for index, name in enumerate(taken._fields[:-1]):
        column = taken[index]
        if key is None:
            if any(column):
                getattr(section, name).extend(column)
        elif column != key[index]:
            relative = name.endswith(RELATIVE)
            getattr(section, name).extend(map(sub, column, key[index]) if relative else column)
    if any(taken.quality) if key is None else taken.quality != key.quality:
        section.quality = taken.quality


def _fill_host(section: telemetry_pb2.HostReadings, taken: HostReadings, key: HostReadings) -> None:
    for name, value, was in zip(taken._fields[:-1], taken[:-1], key[:-1], strict=True):
        if value != was:
            setattr(section, name, value - was)
    if taken.quality != key.quality:
        section.quality = taken.quality


@dataclass(slots=True)
class Counts:
    """What became of a node's reports, as far as the reader can know."""

    received: int = 0  # came and were read
    lost: int = 0  # neither came nor were told as dropped
    dropped: int = 0  # told by the sender as dropped
    keyless: int = 0  # came, but their key report had not
    repeated: int = 0  # came twice or too late
    bad: int = 0  # were no reports

    def add(self, other: Counts) -> None:
        """Count ``other`` too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Decoder:
    """The reading side of one node, over its restarts."""

    __slots__ = ("_dropped", "_key", "_key_sequence", "_node", "_sequence", "_stream", "counts")

    def __init__(self, node: str) -> None:
        self.counts = Counts()
        self._node = node
        self._stream: int | None = None
        self._sequence = 0
        self._dropped = 0
        self._key: Sample | None = None
        self._key_sequence = 0

    @property
    def wants_key(self) -> bool:
        """Whether the last report could not be read for want of its key report."""
        return self._key is None and self._stream is not None

    def decode(self, payload: bytes) -> Report | None:
        """The report in a message; None where it is counted only (keyless, repeated).

        Raises:
            BadReport: the bytes are no report of this version; counted.
        """
        try:
            return self._read(payload)
        except (DecodeError, BadReport) as error:
            self.counts.bad += 1
            raise BadReport(str(error)) from error

    def _read(self, payload: bytes) -> Report | None:
        if len(payload) > MAX_REPORT_BYTES:
            raise BadReport(f"{len(payload)} bytes are too many")
        report = _parse(payload)
        sequence = report.sequence
        if sequence < 1 or report.dropped >= sequence or not 1 <= report.key <= sequence:
            raise BadReport("the counters contradict each other")
        same = report.stream == self._stream
        if same and sequence <= self._sequence:
            self.counts.repeated += 1
            return None
        is_key = report.HasField("identity")
        known = same and not is_key and report.key == self._key_sequence
        key = self._key if known else None
        if is_key != (report.key == sequence):
            raise BadReport("a key report has an identity, and no other has")
        found = None
        if is_key or key is not None:
            found = Report(self._node, report, key)
        self._count_gap(report, same)
        if found is None:
            self._key = None
            self.counts.keyless += 1
            return None
        if is_key:
            self._key, self._key_sequence = found.sample, sequence
        self.counts.received += 1
        return found

    def _count_gap(self, report: telemetry_pb2.NodeReport, same: bool) -> None:
        """Count what should have come between the report before and this one."""
        known = self._stream is not None  # a node heard for the first time owes us nothing
        if not same:
            self._stream, self._sequence, self._dropped = report.stream, 0, 0
        missing = report.sequence - self._sequence - 1
        if known and missing:
            told = min(missing, max(0, report.dropped - self._dropped))
            self.counts.dropped += told
            self.counts.lost += missing - told
        self._sequence, self._dropped = report.sequence, report.dropped


def _identity_out(identity: NodeIdentity) -> telemetry_pb2.NodeIdentity:
    return telemetry_pb2.NodeIdentity(
        hostname=identity.hostname,
        agent_version=identity.agent_version,
        boot_id=identity.boot_id,
        devices=[
            telemetry_pb2.DeviceIdentity(
                id=each.id,
                chip=each.chip,
                vendor=each.vendor,
                serial=each.serial,
                memory_bytes=each.memory_bytes,
            )
            for each in identity.devices
        ],
        leases=identity.leases,
    )
