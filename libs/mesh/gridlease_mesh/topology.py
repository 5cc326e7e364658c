"""Configurations of brokers that are not our own children: a cluster, a factory's leaf node.

python -m gridlease_mesh.topology deploy/nats/leaf.conf NAME=factory-1 LISTEN=0.0.0.0:4222 …
"""

from __future__ import annotations

import json
import re
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gridlease_kernel.faults import Fault, Invalid

from gridlease_mesh.credentials import Authority
from gridlease_mesh.permissions import Permissions, node_permissions

# A value ends up inside quotes, or is a list of quoted values.
_PLAIN: Final = re.compile(r'[^"\\\n{}$]*')
_LIST: Final = re.compile(r'"[^"\\\n{}$]+"(, "[^"\\\n{}$]+")*')


def placeholders(template: str) -> set[str]:
    """The names that a template wants values for."""
    return set(string.Template(_bare(template)).get_identifiers())


def render(template: str, values: Mapping[str, str]) -> str:
    """A configuration file of a template in ``deploy/nats``.

    Raises:
        Invalid: a value is missing, unknown or would not stand inside quotes.
    """
    wanted = placeholders(template)
    for name in sorted(wanted ^ set(values)):
        known = name in wanted
        raise Invalid(
            f"{name} has no value." if known else f"The template has no {name}.",
            reason="TEMPLATE_VALUE_MISSING" if known else "TEMPLATE_VALUE_UNKNOWN",
            field=name,
            remedy=f"Give each of {', '.join(sorted(wanted))} as NAME=VALUE.",
        )
    for name, value in values.items():
        if not (_PLAIN.fullmatch(value) or _LIST.fullmatch(value)):
            raise Invalid(
                f"{name} would end its quotes.",
                reason="TEMPLATE_VALUE_MALFORMED",
                field=name,
                remedy="Leave out quotes, braces, backslashes and dollar signs.",
            )
    return string.Template(_bare(template)).substitute(values)


def listed(values: Sequence[str]) -> str:
    """Several values for one placeholder, as a list's inside."""
    return ", ".join(json.dumps(value) for value in values)


def trust(authority: Authority) -> str:
    """The part of a configuration that says whom the broker trusts; it holds no secret."""
    facts: dict[str, Any] = {
        "operator": authority.operator_token(),
        "system_account": authority.system_public_key,
        "resolver": "MEMORY",
        "resolver_preload": authority.account_tokens(),
    }
    return "\n".join(f"{key}: {json.dumps(value, indent=2)}" for key, value in facts.items()) + "\n"


def leaf_permissions(node_ids: Sequence[str], prefix: str) -> Permissions:
    """What a factory's broker may send and hear at the centre: what its nodes may, no more.

    Raises:
        Invalid: not a node's id, or no nodes at all.
    """
    if not node_ids:
        raise Invalid(
            "A factory without nodes needs no link.",
            reason="NO_NODES",
            field="nodes",
            remedy="Name the factory's nodes.",
        )
    each = [node_permissions(node_id, prefix) for node_id in sorted(set(node_ids))]
    return Permissions(
        tuple(subject for one in each for subject in one.publish),
        tuple(subject for one in each for subject in one.subscribe),
    )


def _bare(template: str) -> str:
    """Without comments: they may speak of anything."""
    lines = (line for line in template.splitlines() if not line.lstrip().startswith("#"))
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Print a rendered template; 2 after an expected failure."""
    try:
        if not argv or any("=" not in word for word in argv[1:]):
            raise Invalid(
                "usage: python -m gridlease_mesh.topology TEMPLATE NAME=VALUE …",
                reason="USAGE",
                remedy="Give a file of deploy/nats and a value for each of its names.",
            )
        values = dict(word.split("=", 1) for word in argv[1:])
        sys.stdout.write(render(Path(argv[0]).read_text("utf-8"), values))
    except (Fault, OSError) as trouble:
        sys.stderr.write(f"{trouble}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
