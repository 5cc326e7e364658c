"""What each purpose likes, in words that the tables of the domain promise."""

import pytest
from gridlease_scheduler.domain.job import Purpose
from gridlease_scheduler.domain.placing.preference import Candidate, Wish, latency_us, rank
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.scheduler.fleet import CATALOGUE

NANO = 10**9


def of(name, **changes):
    return Candidate(name, CATALOGUE.find(name), **changes)


def order(wish, *candidates):
    return [it.candidate.name for it in rank(wish, candidates)]


TRAINING = Wish(Purpose.TRAINING)
BATCH = Wish(Purpose.BATCH)


def serving(target_us=0, **changes):
    return Wish(Purpose.INFERENCE, target_us, "resnet-50", **changes)


def test_training_overflows_from_gpus_to_tpus_and_on():
    names = ["cpu-x86-64", "alveo-u250", "gaudi2", "tpu-v5e", "jetson-agx-orin", "K80-12GB"]
    assert order(TRAINING, *map(of, names)) == [
        "K80-12GB",
        "tpu-v5e",
        "gaudi2",
        "jetson-agx-orin",
        "alveo-u250",
        "cpu-x86-64",
    ]


def test_training_takes_the_most_throughput_for_its_money():
    cheap = of("H100-80GB", price_nano_per_hour=2 * NANO)  # 240 for 2: 120 a unit
    dear = of("B200-180GB", price_nano_per_hour=5 * NANO)  # 520 for 5: 104 a unit
    assert order(TRAINING, dear, cheap) == ["H100-80GB", "B200-180GB"]
    fast = of("B200-180GB", price_nano_per_hour=4 * NANO)
    assert order(TRAINING, fast, cheap) == ["B200-180GB", "H100-80GB"]


def test_a_jobs_measured_throughput_goes_before_the_catalogues():
    h100 = of("H100-80GB", price_nano_per_hour=2 * NANO)
    v100 = of("V100-16GB", price_nano_per_hour=NANO)
    assert order(TRAINING, h100, v100) == ["H100-80GB", "V100-16GB"]
    measured = of("V100-16GB", price_nano_per_hour=NANO, throughput_milli=130_000)
    assert order(TRAINING, h100, measured) == ["V100-16GB", "H100-80GB"]
    useless = of("H100-80GB", price_nano_per_hour=1, throughput_milli=0)
    assert order(TRAINING, useless, v100) == ["V100-16GB", "H100-80GB"]


def test_inference_takes_the_least_power_that_is_fast_enough():
    names = ["H100-80GB", "A100-80GB", "L4-24GB", "jetson-agx-orin", "jetson-xavier-nx"]
    fleet = [of(name) for name in names]
    assert order(serving(1_000), *fleet)[0] == "jetson-agx-orin"  # 695 us, 60 W
    assert order(serving(500), *fleet)[0] == "L4-24GB"  # 362 us, 72 W
    assert order(serving(5_000), *fleet)[0] == "jetson-xavier-nx"  # 2,461 us, 20 W
    assert order(serving(), *fleet)[0] == "jetson-xavier-nx"


def test_an_unknown_latency_comes_last_and_claims_nothing():
    fleet = [of("jetson-nano"), of("L4-24GB"), of("T4-16GB"), of("jetson-xavier-nx")]
    ranked = rank(serving(400), fleet)
    assert [(it.candidate.name, it.meets) for it in ranked] == [
        ("L4-24GB", True),
        ("T4-16GB", False),  # 686 us too slow
        ("jetson-xavier-nx", False),  # further beyond the target
        ("jetson-nano", None),
    ]
    assert "not known" in ranked[-1].words
    assert "misses" in ranked[1].words


def test_a_latency_that_the_job_measured_counts():
    nano = of("jetson-nano", latency_us=390)
    assert order(serving(400), of("L4-24GB"), nano)[0] == "jetson-nano"
    slow = of("L4-24GB", latency_us=900)
    assert rank(serving(400), [slow])[0].meets is False
    assert latency_us(Wish(Purpose.INFERENCE, 1), of("L4-24GB")) is None


def test_the_target_itself_is_met():
    at, beyond = rank(serving(362), [of("L4-24GB")])[0], rank(serving(361), [of("L4-24GB")])[0]
    assert (at.meets, beyond.meets) == (True, False)
    assert "362 us (published) meets" in at.words
    assert "362 us (published) misses" in beyond.words


def test_the_words_tell_where_the_figures_come_from():
    guess = rank(BATCH, [of("L4-24GB")])[0].words
    known = rank(BATCH, [of("L4-24GB", price_nano_per_hour=1, throughput_milli=9)])[0].words
    assert "its catalogued throughput by its relative cost" in guess
    assert "the job's measured throughput by its offer" in known
    assert "measured by the job" in rank(serving(9), [of("L4-24GB", latency_us=9)])[0].words


def test_without_a_target_nothing_is_claimed():
    assert rank(serving(), [of("L4-24GB")])[0].meets is None


def test_batch_takes_the_cheapest_work():
    a100 = of("A100-80GB", price_nano_per_hour=2 * NANO)  # 100 for 2
    l4 = of("L4-24GB", price_nano_per_hour=NANO // 4)  # 24 for 0.25
    assert order(BATCH, a100, l4) == ["L4-24GB", "A100-80GB"]


def test_a_chip_without_an_offer_is_priced_like_the_others():
    # The A100 pays 0.02 a point; the H100's 180 points are then worth 3.60 for 2.28 times the work.
    a100 = of("A100-80GB", price_nano_per_hour=2 * NANO)
    assert order(BATCH, a100, of("H100-80GB")) == ["H100-80GB", "A100-80GB"]
    bargain = of("A100-80GB", price_nano_per_hour=2 * NANO)
    dear = of("H100-80GB", price_nano_per_hour=5 * NANO)
    assert order(BATCH, bargain, dear) == ["A100-80GB", "H100-80GB"]


def test_alternatives_are_equal_or_in_order():
    first = of("A100-80GB", alternative=0)
    second = of("H100-80GB", alternative=1)
    assert order(Wish(Purpose.TRAINING), first, second) == ["H100-80GB", "A100-80GB"]
    assert order(Wish(Purpose.TRAINING, ordered=True), first, second) == ["A100-80GB", "H100-80GB"]


def test_several_of_a_chip_draw_and_cost_as_many_times():
    pair = of("L4-24GB", count=2)  # 144 W
    one = of("A30-24GB")  # 165 W
    assert order(serving(), pair, one) == ["L4-24GB", "A30-24GB"]
    assert order(serving(), of("L4-24GB", count=3), one) == ["A30-24GB", "L4-24GB"]


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_chip_without_an_entry_comes_last(purpose):
    ranked = rank(Wish(purpose, 100, "resnet-50"), [Candidate("mystery", None), of("jetson-nano")])
    assert ranked[-1].candidate.name == "mystery"
    assert "no catalogue entry" in ranked[-1].words


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.just(""),
        chip=st.one_of(st.none(), st.sampled_from(CATALOGUE.chips)),
        count=st.integers(1, 8),
        price_nano_per_hour=st.one_of(st.none(), st.integers(0, 10**11)),
        alternative=st.integers(0, 3),
        throughput_milli=st.one_of(st.none(), st.integers(0, 10**6)),
        latency_us=st.one_of(st.none(), st.integers(1, 10**6)),
    ),
    max_size=12,
)
WISHES = st.builds(
    Wish,
    st.sampled_from(Purpose),
    st.integers(0, 10_000),
    st.sampled_from(["", "resnet-50", "bert-large", "other"]),
    st.booleans(),
)


@given(WISHES, CANDIDATES)
def test_the_order_is_of_integers_and_of_nothing_else(wish, candidates):
    named = [
        Candidate(
            f"c{place}",
            it.chip,
            it.count,
            it.price_nano_per_hour,
            it.alternative,
            it.throughput_milli,
            it.latency_us,
        )
        for place, it in enumerate(candidates)
    ]
    ranked = rank(wish, named)
    assert rank(wish, reversed(named)) == ranked
    assert {it.candidate for it in ranked} == set(named)
    assert all(type(part) is int for it in ranked for part in it.key)
    if wish.ordered:
        places = [it.candidate.alternative for it in ranked]
        assert places == sorted(places)


@given(WISHES, CANDIDATES)
def test_whoever_meets_the_target_stands_before_whoever_does_not(wish, candidates):
    wish = Wish(Purpose.INFERENCE, wish.latency_target_us, wish.model_class)
    candidates = [it for it in candidates if it.chip is not None]
    claims = [it.meets for it in rank(wish, candidates)]
    for it in rank(wish, candidates):
        known = latency_us(wish, it.candidate)
        if it.meets:
            assert known is not None
            assert known <= wish.latency_target_us
    if wish.latency_target_us:
        assert claims == sorted(claims, key={True: 0, False: 1, None: 2}.get)
