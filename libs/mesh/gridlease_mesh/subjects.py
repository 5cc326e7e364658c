"""Where everything lives in the broker's name space.

    <prefix>.any.<package.Service>.<Method>          a service, any instance
    <prefix>.node.<node>.<package.Service>.<Method>  one agent's own services
    <prefix>.up.<node>.<package.Service>.<Method>    a call FROM a node: who calls is in the name
    <prefix>.one.<instance>.<package.Service>.<Method>  one instance, past the queue group
    <root>._call.<instance>.<call>                   frames of one accepted call, to its server
    <root>._call.<instance>.who                      which of these calls do you still have?
    <root>._who.<package.Service>                    which instance has these calls?
    <root>._cancel                                   cancels of calls not yet accepted
    $SRV.PING|INFO|STATS[.<name>[.<instance>]]       presence of services (NATS ADR-32)
    <prefix>.back.<node>.<channel>.<call>            a node's answers to calls of services
    <inbox prefix>.<channel>.<call>                  answers to everybody else
    <prefix>.hint.<node>, <prefix>.tel.<node>.…, <prefix>.events.…

A node's credential covers only names that carry its own id, so the broker enforces who is who.
"""

from __future__ import annotations

import re

from gridlease_kernel.faults import Invalid

DEFAULT_PREFIX = "gl"
ANY = "any"

_TOKEN = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def check_token(value: str, field: str) -> str:
    """``value``, if it may stand between two dots of a subject.

    Raises:
        Invalid: it may not.
    """
    if not _TOKEN.fullmatch(value):
        raise Invalid(
            f"{value!r} cannot be part of a subject.",
            reason="BAD_SUBJECT_TOKEN",
            field=field,
            remedy="Use 1 to 64 letters, digits, hyphens and underscores.",
        )
    return value


def any_root(prefix: str) -> str:
    return f"{prefix}.any"


def node_root(prefix: str, node_id: str) -> str:
    return f"{prefix}.node.{node_id}"


def one_root(prefix: str, instance: str) -> str:
    """Root of the calls to one instance of a service."""
    return f"{prefix}.one.{instance}"


def up_root(prefix: str, node_id: str) -> str:
    """Root of the calls from a node; ``*`` for those of all nodes."""
    return f"{prefix}.up.{node_id}"


def back_inbox(prefix: str, node_id: str) -> str:
    return f"{prefix}.back.{node_id}"


def node_inbox(node_id: str) -> str:
    """Inbox prefix of a node: nobody else may listen there."""
    return f"_INBOX.node.{node_id}"


def service_inbox(name: str) -> str:
    return f"_INBOX.svc.{name}"


def hint(prefix: str, node_id: str) -> str:
    return f"{prefix}.hint.{node_id}"


def method_subject(root: str, method: str) -> str:
    """``/package.Service/Method`` under a root."""
    service, _, name = method.strip("/").partition("/")
    return f"{root}.{service}.{name}"


def who(root: str, service: str) -> str:
    """Where every instance of a service is asked which calls it has."""
    return f"{root}._who.{service}"


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to ``pattern`` hears ``subject``."""
    wanted, given = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":  # noqa: S105 - a wildcard
            return len(given) > index
        if index >= len(given) or token not in ("*", given[index]):
            return False
    return len(wanted) == len(given)
