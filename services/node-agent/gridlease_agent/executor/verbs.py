"""Every verb that the core may ask of the executor: this table is all that the socket offers.

To put a class on the other side of the socket
  1. Write its methods in a ``typing.Protocol`` that both sides can import cheaply. Arguments and
     results are str, int, bool, bytes, enums, frozen dataclasses, tuples, mappings of these, and
     unions of dataclasses; a result may be a ``codec.Handle`` (an open file) or ``Handle | None``.
     Parameters named ``lease_id`` and ``lease_ids`` are checked to be plain names before the
     method is called. Never take a path, an argv, a uid or a device number from the core.
  2. Name the Protocol and its verbs in ``ROOMS``, each with the seconds that it may take.
  3. Make the object that answers in ``privileged.rooms``; a method that takes more than names
     checks what it is given (see ``guard``).
  4. Ask it in the core: ``executor.room("name")`` answers something of that type.
A verb may be asked again when the executor dies under it, unless ``ONCE`` names it: write verbs
that may be repeated.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any

from gridlease_kernel.faults import Invalid

from gridlease_agent.devices.scrubbed import DeviceKeeping
from gridlease_agent.executor import codec, names
from gridlease_agent.images.seam import Images
from gridlease_agent.ports import Files, Reports
from gridlease_agent.runtimes.holding import Holding
from gridlease_agent.runtimes.states import Isolating, SandboxRunner
from gridlease_agent.sessions.host import Entrance

QUICK_S, SLOW_S = 10.0, 600.0


@dataclass(frozen=True, slots=True)
class Room:
    """One class of the executor's: its type, and its verbs with their patience in seconds."""

    kind: type
    verbs: dict[str, float]


def _each(patience_s: float, text: str) -> dict[str, float]:
    return dict.fromkeys(text.split(), patience_s)


ROOMS: dict[str, Room] = {
    "host": Room(Isolating, _each(QUICK_S, "isolation discovered open_energy")),
    "sandboxes": Room(
        SandboxRunner,
        _each(QUICK_S, "extend stop kill look alive inspect egress_bytes")
        | _each(SLOW_S, "start remove"),
    ),
    "files": Room(
        Files,
        _each(QUICK_S, "held deadline folders taken_slots artefacts known")
        | _each(QUICK_S, "open_log open_artefact")
        | _each(SLOW_S, "prepare discard keep prune"),
    ),
    "images": Room(
        Images, _each(QUICK_S, "missing held room") | _each(SLOW_S, "unpack record ready")
    ),
    "devices": Room(DeviceKeeping, _each(QUICK_S, "lacks faults") | _each(SLOW_S, "scrub certify")),
    "warm": Room(Holding, _each(QUICK_S, "seen extend abandon release drop make")),
    "sessions": Room(Entrance, _each(QUICK_S, "exec forward")),
    "reports": Room(Reports, _each(QUICK_S, "read last make")),
}
ONCE = frozenset({"sandboxes.start", "warm.make"})


@dataclass(frozen=True, slots=True)
class Verb:
    """How one verb's arguments and result travel. ``handle``: the result is an open file."""

    name: str
    patience_s: float
    signature: inspect.Signature
    arguments: tuple[tuple[str, codec.Codec], ...]
    result: codec.Codec | None
    handle: bool

    def pack(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
        """The arguments of a call, in order, as JSON's types."""
        bound = self.signature.bind(*arguments, **named)
        bound.apply_defaults()
        given = bound.arguments
        return [kind.encode(given[name]) for name, kind in self.arguments]

    def unpack(self, values: Any) -> dict[str, Any]:
        """A message's arguments, by name, checked.

        Raises:
            Invalid: MESSAGE_MALFORMED, BAD_NAME.
        """
        if type(values) is not list or len(values) != len(self.arguments):
            raise Invalid("Wrong number of arguments.", reason="MESSAGE_MALFORMED")
        pairs = zip(self.arguments, values, strict=True)
        found = {name: kind.decode(value) for (name, kind), value in pairs}
        for name in ("lease_id", "warm_id", "spare"):
            if found.get(name):
                names.check(found[name])
        if found.get("lease_id") == "":
            names.check("")
        for name in found.get("lease_ids", ()):
            names.check(name)
        return found


@functools.cache
def find(name: str) -> Verb:
    """The verb named ``room.verb``.

    Raises:
        Invalid: NO_SUCH_VERB.
    """
    room_name, _dot, method_name = name.partition(".")
    room = ROOMS.get(room_name)
    if room is None or method_name not in room.verbs:
        raise Invalid(f"There is no verb {name[:64]!r}.", reason="NO_SUCH_VERB")
    method: Callable[..., Any] = getattr(room.kind, method_name)
    hints = typing.get_type_hints(method)
    full = inspect.signature(method)
    signature = full.replace(parameters=[p for n, p in full.parameters.items() if n != "self"])
    answer = hints["return"]
    handle = codec.Handle in (answer, *typing.get_args(answer))
    return Verb(
        name,
        room.verbs[method_name],
        signature,
        tuple((x, codec.of(hints[x])) for x in signature.parameters),
        None if handle or answer is NoneType else codec.of(answer),
        handle,
    )


def every() -> Iterable[str]:
    """The names of all verbs."""
    return [f"{room}.{verb}" for room, facts in ROOMS.items() for verb in facts.verbs]
