"""The bytes of the mesh: header blocks, call metadata, timeouts and stream frames.

Pure functions, golden-tested. A unary call is the bare protobuf each way, with a header block
only where there is something to say. A framed call (a stream, or a message larger than the
broker takes) puts six bytes before each body: type, flags, 32-bit sequence.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import re
import struct
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MetadataPair = tuple[str, str | bytes]
HeaderPair = tuple[str, str]

HEADER_LINE = b"NATS/1.0"
STATUS = "grpc-status"
MESSAGE = "grpc-message"
DETAILS = "grpc-status-details-bin"
TIMEOUT = "grpc-timeout"
FRAMED = "gl-framed"
WINDOW = "gl-window"
INITIAL = "gl-initial-"  # before the key of initial metadata in a unary reply
ENCODING = "gl-encoding"  # of a bare message: how its payload is compressed
ACCEPTS = "gl-accept"  # in an opening: how the answer may be compressed
ZLIB = "zlib"
NO_RESPONDERS = 503

_KEY = re.compile(r"[0-9a-z_.\-]+")
_ASCII = re.compile(r"[\x20-\x7e]*")
_FRAME = struct.Struct(">BBI")
_PAIR = struct.Struct(">II")
_REPEATED_BYTES = 64
_MAX_TIMEOUT_DIGITS = 8  # Source: gRPC over HTTP/2, TimeoutValue
_UNITS = (("n", 1), ("u", 1_000), ("m", 1_000_000), ("S", 1_000_000_000), ("M", 60_000_000_000))
_UNIT_NS = {**dict(_UNITS), "H": 3_600_000_000_000}


class BadFrame(ValueError):  # noqa: N818 - what came, not an error of ours
    """The peer sent bytes that are not this protocol."""


class Headers(NamedTuple):
    """A decoded header block: the broker's inline code (0 = none) and the pairs in order."""

    code: int
    pairs: tuple[HeaderPair, ...]

    def get(self, key: str) -> str | None:
        """The first value of ``key``, or None."""
        for name, value in self.pairs:
            if name == key:
                return value
        return None


NO_HEADERS = Headers(0, ())


def encode_headers(pairs: Iterable[HeaderPair]) -> bytes:
    """The header block of a message, or no bytes where there are no pairs."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in pairs)
    return b"NATS/1.0\r\n" + lines.encode("ascii") + b"\r\n" if lines else b""


def join_headers(block: bytes, pairs: Iterable[HeaderPair]) -> bytes:
    """A block with more pairs at its end."""
    lines = "".join(f"{key}: {value}\r\n" for key, value in pairs)
    return b"%b%b\r\n" % (block[:-2], lines.encode("ascii"))


def decode_headers(raw: bytes) -> Headers:
    """What a header block says.

    Raises:
        BadFrame: the block is malformed.
    """
    if not raw:
        return NO_HEADERS
    return _decode_again(raw) if len(raw) <= _REPEATED_BYTES else _decode(raw)


def _decode(raw: bytes) -> Headers:
    try:
        first, *lines = raw.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    except UnicodeDecodeError as error:
        raise BadFrame("header block is not ASCII") from error
    if not first.startswith("NATS/1.0"):
        raise BadFrame("header block has no version line")
    inline = first[len("NATS/1.0") :].split()
    pairs = []
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon:
            raise BadFrame("header line has no colon")
        pairs.append((key, value.removeprefix(" ")))
    code = int(inline[0]) if inline and inline[0].isdigit() else 0
    return Headers(code, tuple(pairs))


_decode_again = functools.lru_cache(maxsize=1024)(_decode)  # short blocks repeat themselves


def encode_metadata(metadata: Iterable[Sequence[str | bytes]]) -> list[HeaderPair]:
    """Call metadata as header pairs; ``-bin`` values travel in base 64.

    Raises:
        ValueError: a key or a value that gRPC does not allow, or a key reserved to the mesh.
    """
    pairs: list[HeaderPair] = []
    for key, value in metadata:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError(f"metadata key {key!r} is not lower-case [0-9a-z_.-]")
        if key.startswith(("grpc-", "gl-")) and key != DETAILS:
            raise ValueError(f"metadata key {key!r} is reserved")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"metadata value of {key!r} must be bytes")
            pairs.append((key, base64.b64encode(value).decode()))
            continue
        text = value.decode("ascii") if isinstance(value, bytes) else value
        if not _ASCII.fullmatch(text):
            raise ValueError(f"metadata value of {key!r} is not printable ASCII")
        pairs.append((key, text))
    return pairs


def decode_metadata(pairs: Iterable[HeaderPair]) -> tuple[MetadataPair, ...]:
    """Header pairs as call metadata, without the reserved keys.

    Raises:
        BadFrame: a ``-bin`` value is not base 64.
    """
    found: list[MetadataPair] = []
    for key, value in pairs:
        if key.startswith(("grpc-", "gl-", "Nats-")) and key != DETAILS:
            continue
        found.append((key, _unbin(key, value) if key.endswith("-bin") else value))
    return tuple(found)


def _unbin(key: str, value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise BadFrame(f"metadata value of {key!r} is not base 64") from error


def encode_timeout(timeout_ns: int) -> str:
    """A span as gRPC writes it: at most eight digits and a unit, rounded up."""
    assert timeout_ns >= 0, timeout_ns
    for unit, size in _UNITS:
        count = -(-timeout_ns // size)
        if len(str(count)) <= _MAX_TIMEOUT_DIGITS:
            return f"{count}{unit}"
    return f"{min(-(-timeout_ns // _UNIT_NS['H']), 99_999_999)}H"


@functools.lru_cache(maxsize=256)
def decode_timeout(text: str) -> int:
    """The span in nanoseconds.

    Raises:
        BadFrame: not a gRPC timeout.
    """
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or len(number) > _MAX_TIMEOUT_DIGITS or unit not in _UNIT_NS:
        raise BadFrame(f"timeout {text!r} is malformed")
    return int(number) * _UNIT_NS[unit]


def encode_message(text: str) -> str:
    """A status message in percent-encoded UTF-8, as gRPC carries it."""
    return urllib.parse.quote(text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^_`{|}~")


def decode_message(text: str) -> str:
    """The text of a percent-encoded status message."""
    return urllib.parse.unquote(text, errors="replace")


class Status(NamedTuple):
    """How a call ended, on the wire: numeric code, message, and trailing metadata."""

    code: int
    message: str
    trailing: tuple[MetadataPair, ...]


def encode_status(status: Status) -> list[HeaderPair]:
    """The header pairs that end a call."""
    pairs = [(STATUS, str(status.code))]
    if status.message:
        pairs.append((MESSAGE, encode_message(status.message)))
    return pairs + encode_metadata(status.trailing)


def decode_status(pairs: Iterable[HeaderPair]) -> Status:
    """How a call ended; a code that gRPC does not know reads as UNKNOWN (2).

    Raises:
        BadFrame: there is no status.
    """
    code, message, rest = None, "", []
    for key, value in pairs:
        if key == STATUS:
            code = int(value) if value.isdecimal() and int(value) <= 16 else 2
        elif key == MESSAGE:
            message = decode_message(value)
        elif not key.startswith(INITIAL):
            rest.append((key, value))
    if code is None:
        raise BadFrame("the end of a call has no status")
    return Status(code, message, decode_metadata(rest))


class FrameType(enum.IntEnum):
    """What a frame is. KEEPALIVE and CANCEL carry the next sequence and do not advance it."""

    ACCEPT = 1  # server → client, first: the reply subject is the call's own from now on
    INITIAL = 2  # server → client: initial metadata
    DATA = 3  # a message, or a part of one where MORE is set
    HALF_CLOSE = 4  # client → server: no more messages
    TRAILERS = 5  # server → client, last: status and trailing metadata
    WINDOW = 6  # receiver → sender: more credits
    CANCEL = 7  # client → server
    KEEPALIVE = 8  # both ways while idle; proves life and that nothing was lost


MORE = 1  # flag of DATA: the message goes on in the next frame
SQUEEZED = 2  # flag of DATA: the whole message, put together, is zlib's
TAKES_ZLIB = 1  # flag of ACCEPT: the server reads squeezed messages
UNORDERED = frozenset({FrameType.CANCEL, FrameType.KEEPALIVE})
SEQUENCE_MASK = 0xFFFFFFFF
FRAME_BYTES = _FRAME.size


class Frame(NamedTuple):
    """One frame of a framed call."""

    type: FrameType
    flags: int
    sequence: int
    body: bytes


def encode_frame(frame: Frame) -> bytes:
    """The frame's bytes."""
    return _FRAME.pack(frame.type, frame.flags, frame.sequence) + frame.body


def decode_frame(payload: bytes) -> Frame:
    """The frame in a message.

    Raises:
        BadFrame: too short, or of a type this version does not know.
    """
    if len(payload) < FRAME_BYTES:
        raise BadFrame("frame is shorter than its head")
    kind, flags, sequence = _FRAME.unpack_from(payload)
    try:
        frame_type = FrameType(kind)
    except ValueError as error:
        raise BadFrame(f"frame type {kind} is unknown") from error
    return Frame(frame_type, flags, sequence, payload[FRAME_BYTES:])


class Grant(NamedTuple):
    """Credits: how many more messages and bytes the other side may send."""

    messages: int
    size_bytes: int


def encode_grant(grant: Grant) -> bytes:
    """The body of WINDOW and ACCEPT."""
    return _PAIR.pack(grant.messages, grant.size_bytes)


def decode_grant(body: bytes) -> Grant:
    """The credits in a body.

    Raises:
        BadFrame: not eight bytes.
    """
    if len(body) != _PAIR.size:
        raise BadFrame("credits are not eight bytes")
    return Grant(*_PAIR.unpack(body))


def decode_window(text: str) -> Grant:
    """The credits in an opening's header.

    Raises:
        BadFrame: not ``messages,bytes``.
    """
    messages, comma, size = text.partition(",")
    if not (comma and messages.isdecimal() and size.isdecimal()) or len(text) > 24:
        raise BadFrame(f"window {text!r} is malformed")
    return Grant(int(messages), int(size))


class Holding(NamedTuple):
    """Which of the calls that were asked about an instance has, and which it has not."""

    mine: tuple[str, ...]
    others: tuple[str, ...]


def encode_asked(calls: Iterable[str]) -> bytes:
    """The question "who has these calls?": the last tokens of their reply subjects."""
    return " ".join(calls).encode("ascii")


def decode_asked(body: bytes) -> tuple[str, ...]:
    """The calls in a question; what is not ASCII is nobody's."""
    return tuple(body.decode("ascii", "replace").split())


def encode_holding(holding: Holding) -> bytes:
    """The answer to the question: ``mine | others``."""
    return f"{' '.join(holding.mine)}|{' '.join(holding.others)}".encode("ascii", "replace")


def decode_holding(body: bytes) -> Holding:
    """What an instance answered.

    Raises:
        BadFrame: not two lists.
    """
    mine, bar, others = body.decode("ascii", "replace").partition("|")
    if not bar:
        raise BadFrame("the answer to a question has no bar")
    return Holding(tuple(mine.split()), tuple(others.split()))
