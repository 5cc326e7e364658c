"""Hints and the fan-out of events: at most once, never the truth.

A hint says "ask again": its body is the generation, and losing it costs seconds. Events are
written by the event feed alone (``feed.py``); who must not miss one is a ``consumer.Consumer``,
and who wants only the newest listens here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from gridlease_mesh import subjects
from gridlease_mesh.bus import Bus
from gridlease_mesh.wire import Unsubscribe

_GENERATION = struct.Struct(">Q")


def send_hint(bus: Bus, node_id: str, generation: int) -> None:
    """Tell a node that its desired set is at ``generation`` (>= 0) now.

    Raises:
        WireDown: no connection; the node's slow tick will find out.
    """
    node = subjects.check_token(node_id, "node_id")
    bus.publish(f"hint.{node}", _GENERATION.pack(generation))


def on_hint(bus: Bus, callback: Callable[[int], None]) -> Unsubscribe:
    """Call back with the generation when this node is hinted at."""
    assert bus.node_id is not None, "hints are for nodes"

    def hand_over(_subject: str, payload: bytes) -> None:
        # A body of another version still means "ask again".
        known = len(payload) == _GENERATION.size
        callback(_GENERATION.unpack(payload)[0] if known else 0)

    return bus.subscribe(f"hint.{bus.node_id}", hand_over)


def on_event(
    bus: Bus, topic: str, callback: Callable[[str, bytes], None], *, queue: str = ""
) -> Unsubscribe:
    """Call back with (topic, payload) for events under ``topic``, wildcards allowed."""

    def hand_over(subject: str, payload: bytes) -> None:
        callback(subject.removeprefix("events."), payload)

    return bus.subscribe(f"events.{topic}", hand_over, queue=queue)
