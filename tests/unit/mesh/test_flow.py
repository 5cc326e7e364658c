"""One direction of a framed call: nothing lost goes unnoticed, nothing passes unpaid."""

import pytest
from gridlease_mesh import flow, frames
from gridlease_mesh.frames import FrameType, Grant
from hypothesis import given
from hypothesis import strategies as st

ROOM = flow.HEADROOM_BYTES + 10  # ten bytes a frame


@given(st.lists(st.binary(max_size=45), max_size=12))
def test_messages_survive_cutting(messages):
    out, inbound = flow.Outbound(ROOM), flow.Inbound()
    got = []
    for message in messages:
        for raw in out.message(message):
            assert len(raw) <= ROOM
            frame = frames.decode_frame(raw)
            inbound.check(frame)
            whole = inbound.message(frame)
            if whole is not None:
                got.append(whole)
    assert got == messages


@given(st.integers(2, 20), st.data())
def test_any_loss_or_swap_is_a_gap(count, data):
    out = flow.Outbound(ROOM)
    sent = [out.frame(FrameType.DATA, b"x") for _ in range(count)] + [
        out.frame(FrameType.KEEPALIVE)
    ]
    lost = data.draw(st.integers(0, count - 1))
    inbound = flow.Inbound()

    def hear():
        for raw in sent[:lost] + sent[lost + 1 :]:
            inbound.check(frames.decode_frame(raw))

    with pytest.raises(flow.Gap):
        hear()


def test_a_double_is_a_gap():
    inbound, raw = flow.Inbound(), flow.Outbound(ROOM).frame(FrameType.DATA)
    inbound.check(frames.decode_frame(raw))
    with pytest.raises(flow.Gap):
        inbound.check(frames.decode_frame(raw))


def test_keepalives_do_not_advance():
    out, inbound = flow.Outbound(ROOM), flow.Inbound()
    for kind in (FrameType.KEEPALIVE, FrameType.DATA, FrameType.KEEPALIVE, FrameType.CANCEL):
        inbound.check(frames.decode_frame(out.frame(kind)))


def test_the_cap():
    out, inbound = flow.Outbound(ROOM), flow.Inbound(max_message_bytes=15)
    first, second = (frames.decode_frame(raw) for raw in out.message(b"a" * 16))
    assert inbound.message(first) is None
    with pytest.raises(flow.TooBig):
        inbound.message(second)


@given(st.lists(st.integers(0, 400), max_size=200))
def test_credits_never_run_dry_for_a_reader_that_reads(sizes):
    window = Grant(8, 1000)
    credit, consumed = flow.Credits(window), flow.Consumed(window)
    for size in sizes:
        assert credit.open
        credit.take(size)
        grant = consumed.take(size)
        if grant is not None:
            credit.add(grant)


def test_credits_stop_a_writer():
    credit = flow.Credits(Grant(2, 100))
    credit.take(150)
    assert not credit.open
    credit.add(Grant(0, 60))
    assert credit.open
    credit.take(1)
    assert not credit.open
