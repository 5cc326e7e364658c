"""What the broker sends is heard whole, however the network cuts it."""

import asyncio
import contextlib
import itertools

import nats.errors
from gridlease_mesh.natswire import _DirectClient
from hypothesis import given, settings
from hypothesis import strategies as st

SUBJECTS = st.sampled_from(["a", "a.b", "gl.any.x.Y.Z", "_INBOX.svc.c.0.1"])
REPLIES = st.sampled_from(["", "", "r", "_INBOX.x.1"])
BODIES = st.binary(max_size=60) | st.sampled_from([b"\r\n", b"MSG a 1 1\r\nx\r\n", b"PING\r\n"])
DIRECT, QUEUED = 1, 2


@st.composite
def messages(draw):
    sid, subject, reply = (
        draw(st.sampled_from([DIRECT, DIRECT, QUEUED])),
        draw(SUBJECTS),
        draw(REPLIES),
    )
    headers, body = draw(st.sampled_from([b"", b"NATS/1.0\r\na: b\r\n\r\n"])), draw(BODIES)
    middle = f"{subject} {sid} {reply} " if reply else f"{subject} {sid} "
    total = len(headers) + len(body)
    line = f"HMSG {middle}{len(headers)} {total}\r\n" if headers else f"MSG {middle}{total}\r\n"
    return (sid, subject, reply, headers, body), line.encode() + headers + body + b"\r\n"


NOISE = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n"]).map(lambda raw: (None, raw))


class Recorder(_DirectClient):
    """Writes down what the parser hands over."""

    def __init__(self):
        super().__init__()
        self.heard = []
        self.direct[DIRECT] = lambda d: self.heard.append(
            (DIRECT, d.subject, d.reply, d.headers, d.payload)
        )

    async def _process_msg(self, sid, subject, reply, data, headers):
        if sid == DIRECT:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        text = bytes(reply or b"").decode()
        self.heard.append((sid, bytes(subject).decode(), text, bytes(headers or b""), bytes(data)))

    async def _process_ping(self):
        pass

    async def _process_pong(self):
        pass


async def parse(chunks):
    client = Recorder()
    for chunk in chunks:
        await client._ps.parse(chunk)
    return client.heard


def cut(raw, places):
    points = sorted({min(place, len(raw)) for place in places} | {0, len(raw)})
    return [raw[a:b] for a, b in itertools.pairwise(points)]


@settings(deadline=None)
@given(st.lists(messages() | NOISE, max_size=12), st.lists(st.integers(0, 2000), max_size=20))
def test_any_cut_gives_the_same_messages(sent, places):
    raw = b"".join(each for _, each in sent)
    expected = [message for message, _ in sent if message is not None]
    assert asyncio.run(parse(cut(raw, places))) == expected


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_what_is_not_the_protocol_is_an_error_or_waits(chunks):
    async def feed():
        with contextlib.suppress(nats.errors.Error, ValueError):
            await parse([b"MSG ", *chunks])

    asyncio.run(feed())
