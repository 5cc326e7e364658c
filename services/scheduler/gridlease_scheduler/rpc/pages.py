"""How long a page is, and where it begins."""

from __future__ import annotations

from gridlease_kernel.faults import Invalid


def limit(asked: int, default: int, most: int) -> int:
    """How many there may be."""
    return min(asked or default, most)


def number(token: str) -> int | None:
    """Where a numbered page begins.

    Raises:
        Invalid: BAD_PAGE_TOKEN.
    """
    if token and not token.isdecimal():
        raise Invalid(
            "This page token is not one of ours.",
            reason="BAD_PAGE_TOKEN",
            field="page_token",
            remedy="Send next_page_token of the page before, or nothing.",
        )
    return int(token) if token else None
