"""The wipe receipt's canonical text: what a node signs when it has wiped what a lease used.

It is the same wherever it is made or checked, and anybody can make it by hand: docs/devices.md
shows one. The signature over it is Ed25519's; ``gridlease_mesh.signatures`` makes and checks it.
"""

from __future__ import annotations

from collections.abc import Sequence

_HEAD = "gridlease wipe receipt 1"


def wipe_text(
    lease: str, public_key: str, wiped: Sequence[tuple[str, str]], verified_ns: int
) -> bytes:
    """The text, in UTF-8, one fact a line, a line feed after each.

    Args:
        wiped: what, and how it was verified, in the receipt's order.
        verified_ns: when the last of them was, as Unix time in ns.

    >>> print(wipe_text("ls-1", "UABC", [("scratch", "deleted")], 7).decode(), end="")
    gridlease wipe receipt 1
    lease ls-1
    key UABC
    verified 7
    wiped scratch by deleted
    """
    lines = [_HEAD, f"lease {lease}", f"key {public_key}", f"verified {verified_ns}"]
    lines += [f"wiped {_one_line(what)} by {_one_line(method)}" for what, method in wiped]
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _one_line(text: str) -> str:
    """A fact cannot begin a line of its own, so that two receipts never share a text."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace(" ", "\\s")
