"""The outbox relay sends a row's headers along."""

from gridlease_mesh import frames
from gridlease_mesh.outbox import Row, relay_once


class Table:
    def __init__(self, *rows):
        self.rows = list(rows)

    async def unsent(self, limit):
        return self.rows[:limit]

    async def mark_sent(self, ids):
        self.rows = [row for row in self.rows if row.id not in ids]


class Teller:
    def __init__(self):
        self.told = []

    def publish(self, subject, payload, *, headers=b""):
        self.told.append((subject, payload, frames.decode_headers(headers).pairs))

    async def flush(self, timeout_s=5.0):
        pass


async def test_the_trace_of_a_row_goes_along():
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    table, teller = (
        Table(Row(1, "hint.n-1", b"x", {"traceparent": trace}), Row(2, "s", b"")),
        Teller(),
    )
    assert await relay_once(table, teller) == 2
    assert teller.told == [("hint.n-1", b"x", (("traceparent", trace),)), ("s", b"", ())]
    assert table.rows == []
