"""One direction of a framed call: sequence, reassembly, credits, squeezing. Pure, no I/O."""

from __future__ import annotations

import collections
import zlib

from gridlease_mesh import frames
from gridlease_mesh.frames import Frame, FrameType, Grant

MAX_MESSAGE_BYTES = 4 << 20  # gRPC's default
DEFAULT_WINDOW = Grant(64, 1 << 20)
HEADROOM_BYTES = 1024  # for a frame's head and its header line, off the broker's limit
SQUEEZE_FROM_BYTES = 1024  # below it, zlib costs more than the bytes it saves


class Gap(Exception):  # noqa: N818 - what happened, not an error of ours
    """Frames were lost or reordered on the way: the call must end with DATA_LOSS."""


class TooBig(Exception):  # noqa: N818 - what happened, not an error of ours
    """A message exceeds the cap."""


def squeeze(message: bytes) -> bytes | None:
    """The message by zlib at level 1, or None where it would not save a tenth."""
    if len(message) < SQUEEZE_FROM_BYTES:
        return None
    packed = zlib.compress(message, 1)
    return packed if len(packed) * 10 <= len(message) * 9 else None


def unsqueeze(packed: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """The message that was squeezed, never larger than ``max_bytes``.

    Raises:
        TooBig: it would be.
        BadFrame: not zlib's bytes.
    """
    reader = zlib.decompressobj()
    try:
        message = reader.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise frames.BadFrame("a squeezed message is damaged") from error
    if len(message) > max_bytes:
        raise TooBig(f"a message exceeds {max_bytes} bytes")
    if not reader.eof:
        raise frames.BadFrame("a squeezed message is cut off")
    return message


class Outbound:
    """Numbers the frames that we send and cuts messages to what the broker takes."""

    def __init__(self, max_frame_bytes: int) -> None:
        self._next = 0
        self._cut = max_frame_bytes - HEADROOM_BYTES

    def frame(self, kind: FrameType, body: bytes = b"", flags: int = 0) -> bytes:
        """The bytes of the next frame."""
        sequence = self._next
        if kind not in frames.UNORDERED:
            self._next = (sequence + 1) & frames.SEQUENCE_MASK
        return frames.encode_frame(Frame(kind, flags, sequence, body))

    def message(self, message: bytes, *, squeezing: bool = False) -> list[bytes]:
        """The DATA frames of one message: one, or several with MORE on all but the last."""
        packed = squeeze(message) if squeezing else None
        flags = 0 if packed is None else frames.SQUEEZED
        message = message if packed is None else packed
        parts = [message[at : at + self._cut] for at in range(0, len(message), self._cut)] or [b""]
        last = len(parts) - 1
        return [
            self.frame(FrameType.DATA, part, flags | (frames.MORE if index < last else 0))
            for index, part in enumerate(parts)
        ]


class Inbound:
    """Checks the order of frames that we get and puts messages together again."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._next = 0
        self._max = max_message_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def check(self, frame: Frame) -> None:
        """Take note of a frame.

        Raises:
            Gap: it is not the one that was due.
        """
        if frame.sequence != self._next:
            raise Gap(f"expected frame {self._next}, got {frame.sequence}")
        if frame.type not in frames.UNORDERED:
            self._next = (self._next + 1) & frames.SEQUENCE_MASK

    def message(self, frame: Frame) -> bytes | None:
        """The whole message that this DATA frame completes, or None if it goes on.

        Raises:
            TooBig: the message exceeds the cap.
        """
        self._size += len(frame.body)
        if self._size > self._max:
            raise TooBig(f"a message exceeds {self._max} bytes")
        if frame.flags & frames.MORE:
            self._parts.append(frame.body)
            return None
        whole = b"".join((*self._parts, frame.body)) if self._parts else frame.body
        self._parts, self._size = [], 0
        return unsqueeze(whole, self._max) if frame.flags & frames.SQUEEZED else whole


class Credits:
    """How much the other side lets us send. A message may start while both are above zero."""

    def __init__(self, grant: Grant) -> None:
        self._messages = grant.messages
        self._bytes = grant.size_bytes

    @property
    def open(self) -> bool:
        return self._messages > 0 and self._bytes > 0

    def take(self, size_bytes: int) -> None:
        self._messages -= 1
        self._bytes -= size_bytes

    def add(self, grant: Grant) -> None:
        self._messages += grant.messages
        self._bytes += grant.size_bytes


class Consumed:
    """Counts what our reader took, and says when it is worth granting more."""

    def __init__(self, window: Grant) -> None:
        self._half = Grant(max(1, window.messages // 2), max(1, window.size_bytes // 2))
        self._messages = 0
        self._bytes = 0

    def take(self, size_bytes: int) -> Grant | None:
        """Count one message; the credits to give back now, if it is time."""
        self._messages += 1
        self._bytes += size_bytes
        if self._messages < self._half.messages and self._bytes < self._half.size_bytes:
            return None
        grant = Grant(self._messages, self._bytes)
        self._messages = self._bytes = 0
        return grant


class Mailbox:
    """Messages that came and wait for our reader; bounded by the credits that we gave."""

    def __init__(self, window: Grant = DEFAULT_WINDOW) -> None:
        self._messages: collections.deque[bytes] = collections.deque()
        self._consumed = Consumed(window)
        self._max_messages = 2 * window.messages
        self._max_bytes = 2 * window.size_bytes + MAX_MESSAGE_BYTES
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: bytes) -> None:
        """Keep a message.

        Raises:
            TooBig: the sender does not mind its credits.
        """
        self._bytes += len(message)
        if len(self._messages) >= self._max_messages or self._bytes > self._max_bytes:
            raise TooBig("more was sent than was granted")
        self._messages.append(message)

    def take(self) -> tuple[bytes, Grant | None]:
        """The oldest message, and the credits to give back now, if it is time."""
        message = self._messages.popleft()
        self._bytes -= len(message)
        return message, self._consumed.take(len(message))

    def clear(self) -> None:
        self._messages.clear()
        self._bytes = 0
