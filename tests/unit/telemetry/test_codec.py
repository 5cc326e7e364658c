"""What is read is what was sampled, whatever was lost on the way; every miss is counted."""

import pytest
from gridlease.telemetry.v1 import telemetry_pb2
from gridlease_mesh.telemetry_codec import Decoder, Encoder
from gridlease_mesh.telemetry_report import BadReport
from gridlease_mesh.telemetry_sample import NodeIdentity, Quality, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.telemetry.busy import busy
from tests.unit.telemetry.samples import samples, sequences

STREAM = 7


def plain(second=0):
    return sample(time_unix_ms=second, identity=NodeIdentity("host"))


def wire(count, key_every=60, stream=STREAM):
    """The first ``count`` reports of a quiet node."""
    encoder = Encoder(stream, key_every=key_every)
    return [encoder.encode(plain(n), sequence=n, dropped=0) for n in range(1, count + 1)]


@settings(max_examples=60, deadline=None)
@given(sequences(), st.integers(1, 4))
def test_without_losses_all_is_read(taken, key_every):
    encoder, decoder = Encoder(STREAM, key_every=key_every), Decoder("n")
    for sequence, each in enumerate(taken, 1):
        report = decoder.decode(encoder.encode(each, sequence=sequence, dropped=0))
        assert (report.node, report.stream, report.sequence) == ("n", STREAM, sequence)
        assert report.sample == each
    assert decoder.counts.received == len(taken)
    assert decoder.counts.lost == decoder.counts.dropped == decoder.counts.keyless == 0


FATES = st.lists(st.sampled_from(["arrive", "lose", "drop", "double"]), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(sequences(), FATES, st.integers(1, 5))
def test_with_losses_what_is_read_is_right_and_the_rest_is_counted(taken, fates, key_every):
    encoder, decoder = Encoder(STREAM, key_every=key_every), Decoder("n")
    first = decoder.decode(encoder.encode(plain(), sequence=1, dropped=0))
    assert first is not None
    dropped = lost = doubled = tail_lost = tail_dropped = 0
    for sequence, (each, fate) in enumerate(zip(taken, fates, strict=False), 2):
        if fate == "drop":
            dropped += 1
            tail_dropped += 1
            continue
        payload = encoder.encode(each, sequence=sequence, dropped=dropped)
        if fate == "lose":
            lost += 1
            tail_lost += 1
            continue
        tail_lost = tail_dropped = 0
        for _ in range(1 + (fate == "double")):
            report = decoder.decode(payload)
            if report is not None:
                assert (report.sequence, report.sample) == (sequence, each)
        doubled += fate == "double"
        if decoder.wants_key:
            encoder.ask_key()
    counts = decoder.counts
    assert counts.dropped == dropped - tail_dropped
    assert counts.lost == lost - tail_lost
    assert counts.repeated == doubled
    came = len(list(zip(taken, fates, strict=False))) - dropped - lost
    assert counts.received + counts.keyless == 1 + came


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read_but_never_break_it(payload):
    decoder = Decoder("n")
    try:
        report = decoder.decode(payload)
    except BadReport:
        assert decoder.counts.bad == 1
    else:
        assert report is None or report.sample


@settings(max_examples=60, deadline=None)
@given(samples(), st.data())
def test_a_damaged_report_does_no_harm_to_the_next(taken, data):
    encoder, decoder = Encoder(STREAM), Decoder("n")
    decoder.decode(encoder.encode(taken, sequence=1, dropped=0))
    payload = bytearray(encoder.encode(taken, sequence=2, dropped=0))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        report = decoder.decode(bytes(payload))
        assert report is None or report.sample
    except BadReport:
        following = encoder.encode(taken, sequence=3, dropped=0)
        assert decoder.decode(following).sample == taken


def test_a_lost_report_spoils_nothing():
    encoder, decoder = Encoder(STREAM), Decoder("n")
    payloads = [encoder.encode(busy(n), sequence=n, dropped=0) for n in (1, 2, 3)]
    decoder.decode(payloads[0])
    assert decoder.decode(payloads[2]).sample == busy(3)
    assert decoder.counts.lost == 1


def test_a_lost_key_report_is_asked_for():
    encoder, decoder = Encoder(STREAM, key_every=2), Decoder("n")
    payloads = [encoder.encode(plain(n), sequence=n, dropped=0) for n in (1, 2, 3, 4)]
    assert decoder.decode(payloads[0])
    assert decoder.decode(payloads[3]) is None  # of the key report 3, which was lost
    assert decoder.wants_key
    encoder.ask_key()
    assert decoder.decode(encoder.encode(plain(5), sequence=5, dropped=0)).sample == plain(5)
    assert (decoder.counts.lost, decoder.counts.keyless, decoder.wants_key) == (2, 1, False)


def test_a_new_stream_starts_afresh_and_its_own_losses_count():
    decoder = Decoder("n")
    for payload in wire(3):
        decoder.decode(payload)
    again = wire(4, stream=8, key_every=1)
    assert decoder.decode(again[2]).sequence == 3
    assert (decoder.counts.received, decoder.counts.lost) == (4, 2)


def test_who_starts_to_listen_late_has_lost_nothing():
    decoder = Decoder("n")
    assert decoder.decode(wire(9)[8]) is None
    assert (decoder.counts.lost, decoder.wants_key) == (0, True)


def test_an_identity_that_changes_makes_a_key_report():
    encoder, decoder = Encoder(STREAM), Decoder("n")
    decoder.decode(encoder.encode(busy(1, leases=2), sequence=1, dropped=0))
    changed = busy(2, leases=3)
    assert decoder.decode(encoder.encode(changed, sequence=2, dropped=0)).sample == changed


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sequence": 1},
        {"sequence": 1, "key": 2},
        {"sequence": 2, "key": 1, "dropped": 2},
        {"sequence": 2, "key": 1, "identity": {}},
        {"sequence": 1, "key": 1},
        {"sequence": 1, "key": 1, "identity": {}, "devices": {"power_mw": [1]}},
        {"sequence": 1, "key": 1, "identity": {}, "leases": {"processes": [1, 2]}},
        {"sequence": 1, "key": 1, "identity": {}, "host": {"quality": b"\1"}},
        {"sequence": 1, "key": 1, "identity": {}, "host": {"quality": b"\xee" * 7}},
        {"sequence": 1, "key": 1, "identity": {"leases": ["x"] * 5000}},
    ],
)
def test_reports_that_contradict_themselves_are_refused(fields):
    decoder = Decoder("n")
    with pytest.raises(BadReport):
        decoder.decode(telemetry_pb2.NodeReport(**fields).SerializeToString())
    assert decoder.counts.bad == 1


def test_a_report_too_large_to_look_at_is_refused():
    with pytest.raises(BadReport):
        Decoder("n").decode(bytes(600 << 10))


def test_64_devices_take_at_most_2500_bytes_in_steady_state():
    encoder = Encoder(STREAM)
    sizes = [len(encoder.encode(busy(n), sequence=n, dropped=0)) for n in range(1, 61)]
    assert max(sizes[1:]) <= 2500
    assert sizes[0] <= 8000  # the key report, once in 60


def test_a_change_of_quality_is_carried():
    encoder, decoder = Encoder(STREAM), Decoder("n")
    decoder.decode(encoder.encode(busy(1), sequence=1, dropped=0))
    second = busy(2)
    quality = bytes([Quality.SUSPECT]) + second.devices.quality[1:]
    doubtful = second._replace(devices=second.devices._replace(quality=quality))
    payload = encoder.encode(doubtful, sequence=2, dropped=0)
    assert decoder.decode(payload).sample.devices.quality == quality
    assert len(payload) <= 2500


# The wire, byte by byte: 1 stream, 2 sequence, 3 dropped, 4 time, 5 key, 6 identity, 8 host.
GOLDEN_KEY = "09 0700000000000000 10 01 20 05 28 01 32 06 0a 04 686f7374"
GOLDEN_SECOND = "09 0700000000000000 10 03 18 01 20 05 28 01 42 0d 08 04 30 06 7a 07 00000000000100"


def test_golden_bytes():
    encoder = Encoder(STREAM)
    with_power = plain(5)._replace(
        host=plain().host._replace(cpu_ns=2, power_mw=3, quality=bytes([0] * 5 + [1, 0]))
    )
    key = encoder.encode(plain(5), sequence=1, dropped=0)
    second = encoder.encode(with_power, sequence=3, dropped=1)
    assert key.hex() == GOLDEN_KEY.replace(" ", "")
    assert second.hex() == GOLDEN_SECOND.replace(" ", "")
