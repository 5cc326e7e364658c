"""The wire's bytes: golden examples, and round trips of whatever can be sent."""

import pytest
from gridlease_mesh import frames
from gridlease_mesh.frames import Frame, FrameType, Grant, Status
from hypothesis import given
from hypothesis import strategies as st

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
KEYS = st.from_regex(r"[0-9a-z_.\-]{1,20}", fullmatch=True).filter(
    lambda key: not key.startswith(("grpc-", "gl-")) and not key.endswith("-bin")
)
METADATA = st.lists(
    st.tuples(KEYS, PRINTABLE) | st.tuples(KEYS.map("{}-bin".format), st.binary()), max_size=8
)


def test_golden_bytes():
    assert frames.encode_headers([("grpc-timeout", "5000m"), ("a", "b")]) == (
        b"NATS/1.0\r\ngrpc-timeout: 5000m\r\na: b\r\n\r\n"
    )
    frame = Frame(FrameType.DATA, frames.MORE, 7, b"xy")
    assert frames.encode_frame(frame) == b"\x03\x01\x00\x00\x00\x07xy"
    assert frames.encode_grant(Grant(64, 1 << 20)) == b"\x00\x00\x00\x40\x00\x10\x00\x00"
    assert frames.encode_status(Status(9, "ä %", (("why", "x"),))) == [
        ("grpc-status", "9"),
        ("grpc-message", "%C3%A4 %25"),
        ("why", "x"),
    ]


def test_no_pairs_are_no_bytes():
    assert frames.encode_headers([]) == b""
    assert frames.decode_headers(b"") == frames.NO_HEADERS


@pytest.mark.parametrize("tail", [b"", b" No Responders"])
def test_the_brokers_inline_code(tail):
    assert frames.decode_headers(b"NATS/1.0 503" + tail + b"\r\n\r\n").code == 503


@given(METADATA)
def test_metadata_round_trip(metadata):
    block = frames.encode_headers(frames.encode_metadata(metadata))
    assert frames.decode_metadata(frames.decode_headers(block).pairs) == tuple(metadata)


@given(st.integers(0, 16), st.text(), METADATA)
def test_status_round_trip(code, message, trailing):
    try:
        message.encode()
    except UnicodeEncodeError:
        return
    status = Status(code, message, tuple(trailing))
    block = frames.encode_headers(frames.encode_status(status))
    assert frames.decode_status(frames.decode_headers(block).pairs) == status


@given(st.sampled_from(FrameType), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary())
def test_frame_round_trip(kind, flags, sequence, body):
    frame = Frame(kind, flags, sequence, body)
    assert frames.decode_frame(frames.encode_frame(frame)) == frame


@given(st.integers(0, 10**17))
def test_a_timeout_never_shrinks_and_stays_close(timeout_ns):
    text = frames.encode_timeout(timeout_ns)
    assert len(text) <= 9
    assert timeout_ns <= frames.decode_timeout(text) <= timeout_ns * 1.000001 + 1_000_000_000


@given(st.binary())
def test_garbage_is_a_bad_frame_or_nothing(payload):
    for decode in (frames.decode_headers, frames.decode_frame, frames.decode_grant):
        try:
            decode(payload)
        except frames.BadFrame:
            continue


@pytest.mark.parametrize(
    "pair",
    [
        ("Upper", "x"),
        ("with space", "x"),
        ("", "x"),
        ("grpc-timeout", "1S"),
        ("gl-node", "n-1"),
        ("text", "new\r\nline"),
        ("text", "ä"),
        ("some-bin", "text"),
        ("key\r\nother", "x"),
    ],
)
def test_metadata_that_cannot_travel_is_refused(pair):
    with pytest.raises(ValueError, match="metadata"):
        frames.encode_metadata([pair])


def test_reserved_keys_of_a_peer_are_dropped():
    pairs = [("gl-node", "n-1"), ("grpc-timeout", "1S"), ("Nats-Thing", "x"), ("a", "b")]
    assert frames.decode_metadata(pairs) == (("a", "b"),)


@pytest.mark.parametrize("text", ["", "5", "S", "123456789S", "-1S", "1.5S", "1X"])
def test_malformed_timeouts(text):
    with pytest.raises(frames.BadFrame):
        frames.decode_timeout(text)


def test_an_end_without_status_is_malformed():
    with pytest.raises(frames.BadFrame):
        frames.decode_status([("a", "b")])


def test_a_code_from_the_future_is_unknown():
    assert frames.decode_status([("grpc-status", "99")]).code == 2
