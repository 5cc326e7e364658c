"""Who may publish and hear what: one table, and the subjects that follow from it. Pure.

Each room has a role; the table says which services it serves, calls and offers to nodes, and what
it does with the event feed. All else is refused by the broker, whatever a room's code does. A
node may use only names that carry its own id. A test compares the table with the descriptors and
tries every cell on a real broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gridlease_kernel.faults import Invalid

from gridlease_mesh import subjects

_S: Final = "gridlease.scheduler.v1"
_B: Final = "gridlease.billing.v1"
_G: Final = "gridlease.gateway.v1"
_A: Final = "gridlease.agent.v1"
_VERBS: Final = ("PING", "INFO", "STATS")


@dataclass(frozen=True, slots=True)
class Permissions:
    """The subjects that a user may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def may_publish(self, subject: str) -> bool:
        """Whether the broker lets a message to ``subject`` through."""
        return any(subjects.matches(pattern, subject) for pattern in self.publish)

    def may_subscribe(self, pattern: str) -> bool:
        """Whether a subscription to ``pattern`` is allowed: all that it hears must be."""
        return any(covers(allowed, pattern) for allowed in self.subscribe)


@dataclass(frozen=True, slots=True)
class Role:
    """What a room does on the mesh, by full names of services.

    ``to_nodes``: of those served, the ones that nodes may call. ``on_nodes``: services of nodes
    that it calls. ``tells``/``hears``: topics under the prefix. ``feeds``: writes the event feed;
    ``reads_feed``: has one durable consumer of it, named as the role. ``watches``: asks who is
    there and how they fare.
    """

    serves: frozenset[str] = frozenset()
    to_nodes: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    on_nodes: frozenset[str] = frozenset()
    tells: frozenset[str] = frozenset()
    hears: frozenset[str] = frozenset()
    feeds: bool = False
    reads_feed: bool = False
    watches: bool = False


ROLES: Final[Mapping[str, Role]] = {
    "scheduler": Role(
        serves=frozenset(
            {f"{_S}.{it}Service" for it in ("Job", "Fleet", "Capacity", "Sync")}
        ),
        to_nodes=frozenset({f"{_S}.SyncService"}),
        calls=frozenset({f"{_B}.LeaseService", f"{_B}.AccountService"}),  # prices, for plans
        tells=frozenset({"hint.*"}),
        hears=frozenset({"tel.*.spans"}),  # to export them: nodes have no exporter
        feeds=True,
    ),
    "billing": Role(
        serves=frozenset(
            f"{_B}.{it}Service"
            for it in (
                "Lease", "Settlement", "Account", "Report", "Supplier", "Contract", "Receivable",
            )
        ),
        to_nodes=frozenset({f"{_B}.SettlementService"}),
    ),
    "gateway": Role(
        serves=frozenset({f"{_G}.BundleContentService"}),
        to_nodes=frozenset({f"{_G}.BundleContentService"}),
        calls=frozenset(
            {f"{_S}.{it}Service" for it in ("Job", "Fleet", "Capacity")}
            | {
                f"{_B}.{it}Service"
                for it in ("Account", "Report", "Supplier", "Contract", "Receivable")
            }
        ),
        on_nodes=frozenset({f"{_A}.TaskFileService", f"{_A}.SessionService"}),
    ),
    # Reads the nodes' reports and asks them for whole ones.
    "telemetry": Role(
        hears=frozenset({"tel.*.report"}), tells=frozenset({"node.*._telemetry.key"})
    ),
    # People with tools: they look, and change nothing; changes go through the gateway.
    "operator": Role(
        hears=frozenset({"events.>", "tel.*.report", "dead.>"}), reads_feed=True, watches=True
    ),
}  # fmt: skip
# Public: served by the gateway over gRPC, never on the mesh.
PUBLIC: Final = frozenset(
    f"{_G}.{it}Service"
    for it in (
        "Job",
        "Session",
        "Fleet",
        "Capacity",
        "Billing",
        "Report",
        "Supplier",
        "Contract",
        "Receivable",
        "Webhook",
        "Access",
    )
)
NODE_SERVES: Final = frozenset({f"{_A}.TaskFileService", f"{_A}.SessionService"})


def covers(allowed: str, pattern: str) -> bool:
    """Whether every subject that ``pattern`` hears is one that ``allowed`` hears."""
    wide, narrow = allowed.split("."), pattern.split(".")
    for index, token in enumerate(wide):
        if token == ">":  # noqa: S105 - a wildcard
            return len(narrow) > index
        if index >= len(narrow) or narrow[index] == ">":
            return False
        if token not in ("*", narrow[index]):
            return False
    return len(wide) == len(narrow)


def node_permissions(node_id: str, prefix: str = subjects.DEFAULT_PREFIX) -> Permissions:
    """What a node may do: only names that carry its own id.

    Raises:
        Invalid: not a node's id.
    """
    node = subjects.check_token(node_id, "node_id")
    return Permissions(
        publish=(f"{prefix}.up.{node}.>", f"{prefix}.tel.{node}.>", f"{prefix}.back.{node}.>"),
        subscribe=(
            f"{prefix}.node.{node}.>",
            f"{prefix}.hint.{node}",
            f"{subjects.node_inbox(node)}.>",
        ),
    )


def role_permissions(
    name: str, prefix: str = subjects.DEFAULT_PREFIX, roles: Mapping[str, Role] = ROLES
) -> Permissions:
    """What a room may do.

    Raises:
        Invalid: no such role.
    """
    if name not in roles:
        raise Invalid(
            f"There is no role {name!r}.",
            reason="NO_SUCH_ROLE",
            field="role",
            remedy=f"Choose one of {', '.join(sorted(roles))}.",
        )
    role = roles[name]
    publish = {f"{prefix}.{topic}" for topic in role.tells}
    publish.add(f"{subjects.any_root(prefix)}._nobody")  # the wire's check of itself
    publish |= {f"{subjects.service_inbox(caller)}.>" for caller in _callers(name, roles)}
    if role.to_nodes:
        publish.add(f"{subjects.node_inbox('*')}.>")
    for root in _roots(prefix) if role.calls else ():
        publish |= _asking(root, role.calls)
    if role.on_nodes:
        publish |= _doors(subjects.node_root(prefix, "*"), role.on_nodes)
    publish |= _feed_subjects(name, role, prefix)
    publish |= _questions(role, roles)
    hears = {f"{prefix}.{topic}" for topic in role.hears} | {f"{subjects.service_inbox(name)}.>"}
    for root in _roots(prefix) if role.serves else ():
        hears |= _doors(root, role.serves)
    if role.to_nodes:
        hears |= _doors(subjects.up_root(prefix, "*"), role.to_nodes)
    if role.on_nodes:
        hears.add(f"{subjects.back_inbox(prefix, '*')}.>")
    if role.serves:
        hears |= {
            f"$SRV.{verb}{tail}" for verb in _VERBS for tail in ("", f".{name}", f".{name}.*")
        }
    return Permissions(tuple(sorted(publish)), tuple(sorted(hears)))


def _roots(prefix: str) -> tuple[str, ...]:
    return subjects.any_root(prefix), subjects.one_root(prefix, "*")


def _doors(root: str, services: Iterable[str]) -> set[str]:
    """All that a caller of these services says under a root, and all that their server hears."""
    doors = {f"{root}.{service}.*" for service in services}
    doors |= {subjects.who(root, service) for service in services}
    return doors | {f"{root}._call.*.*", f"{root}._cancel"}


def _asking(root: str, services: Iterable[str]) -> set[str]:
    """As ``_doors``, of a caller: who serves, it may ask of a whole package, which is shorter.

    A credential is one line to the broker, and a line of NATS has 4096 bytes at most.
    """
    doors = {f"{root}.{service}.*" for service in services}
    packages = {service.rpartition(".")[0] for service in services}
    doors |= {subjects.who(root, f"{package}.*") for package in packages}
    return doors | {f"{root}._call.*.*", f"{root}._cancel"}


def _callers(name: str, roles: Mapping[str, Role]) -> set[str]:
    """Who gets answers from this role: those who call it or ask how it fares."""
    mine = roles[name].serves
    return {
        caller
        for caller, role in roles.items()
        if role.calls & mine or (role.watches and mine and caller != name)
    }


def _questions(role: Role, roles: Mapping[str, Role]) -> set[str]:
    if role.watches:
        return {f"$SRV.{verb}{tail}" for verb in _VERBS for tail in ("", ".>")}
    asked = (each for each, other in roles.items() if other.serves & role.calls)
    return {f"$SRV.{verb}.{each}" for each in asked for verb in _VERBS}


def _feed_subjects(name: str, role: Role, prefix: str) -> set[str]:
    stream, dead = (stream_name(kind, prefix) for kind in ("EVENTS", "DEAD"))
    found = set()
    if role.feeds:
        verbs = ("CREATE", "UPDATE", "INFO", "DELETE", "MSG.GET")
        found |= {f"$JS.API.STREAM.{verb}.{stream}" for verb in verbs}
        found |= {f"$JS.API.STREAM.{verb}.{dead}" for verb in ("CREATE", "UPDATE")}
        found.add(f"{prefix}.events.>")
    if role.reads_feed:
        found |= {
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}",
            f"$JS.ACK.{stream}.{name}.>",
            f"{prefix}.dead.{stream}.{name}",
        }
    return found


def stream_name(kind: str, prefix: str) -> str:
    """Of a JetStream stream: named in the account, not under a prefix."""
    return kind if prefix == subjects.DEFAULT_PREFIX else f"{kind}_{prefix}"
