"""A line of a scenario, word by word."""

import re

from gridlease_scheduler.adapters.catalogue import load

CATALOGUE = load()
_SPAN = re.compile(r"(\d+)(h|m|s)")


class UnreadableError(Exception):
    """A line that says nothing that is known."""


def span_ms(text):
    """``1h30m`` and the like."""
    if not re.fullmatch(rf"({_SPAN.pattern})+", text):
        raise UnreadableError(f"{text!r} is no span of time; write 1h30m or 20s")
    return sum(
        int(n) * {"h": 3_600_000, "m": 60_000, "s": 1_000}[u] for n, u in _SPAN.findall(text)
    )


class Words:
    """A line's words, taken from the left."""

    def __init__(self, words):
        self.name, self.left = words[0], words[1:]
        self.line = " ".join(words)

    def take(self, *phrase):
        """Is this next? Then it is taken."""
        if self.left[: len(phrase)] == list(phrase):
            del self.left[: len(phrase)]
            return True
        return False

    def word(self):
        """The next one, whatever it is."""
        if not self.left:
            raise UnreadableError(f"{self.line!r} ends too early")
        return self.left.pop(0)

    def span(self):
        return span_ms(self.word())

    def number(self):
        return int(self.word())

    def is_chip(self):
        """``8 A100-80GB``, or a family."""
        return (
            len(self.left) > 1
            and self.left[0].isdigit()
            and CATALOGUE.unknown([self.left[1]]) is None
        )

    def stray(self):
        return UnreadableError(f"{self.left[0]!r} in {self.line!r} says nothing that is known")


def names(name):
    """``n1..n4`` is four names."""
    found = re.fullmatch(r"(.*?)(\d+)\.\.\1(\d+)", name)
    if not found:
        return [name]
    return [f"{found[1]}{at}" for at in range(int(found[2]), int(found[3]) + 1)]
