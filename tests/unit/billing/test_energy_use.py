"""Energy and carbon with what is not sure of them, and the lines that tell of it."""

from dataclasses import replace

import pytest
from gridlease_billing.domain import invoice_text
from gridlease_billing.domain.carbon import HOUR_MS, Embodied, SitePower, footprint
from gridlease_billing.domain.energy_use import Basis, Draw, EnergyUse, Range, total, use_of
from gridlease_billing.domain.footprint_line import Telling, Told, beyond, information
from gridlease_billing.domain.invoice import FINAL, Head, as_json, compose
from gridlease_billing.domain.invoice_rows import as_csv, as_focus, focus_rows
from gridlease_billing.domain.usage import Line

KWH = 3_600_000_000
DRAW = Draw(100_000, 400_000, "a data sheet")
MADE = Embodied(150_000, 35_040, 500, "a study")
CLEAN_AT_NOON = SitePower(1_200, tuple(100_000 if hour == 12 else 400_000 for hour in range(24)))


def test_what_is_not_metered_is_estimated_between_idle_and_full_load():
    (use,) = use_of([(0, 0, HOUR_MS)], SitePower(1_500, (400_000,)), DRAW, MADE, 2_000)
    assert use.basis is Basis.ESTIMATED
    assert use.energy == Range(KWH * 3 // 4, KWH * 3 // 10, KWH * 12 // 10)
    assert use.operational == Range(300_000, 120_000, 480_000)  # mg: 0.75 kWh at 400 g
    assert use.embodied_mg == 150_000_000 * 2 // 35_040


def test_what_is_metered_is_not_estimated_also_in_a_segment_without_energy():
    parts = use_of(
        [(KWH, 0, HOUR_MS), (0, HOUR_MS, 1_000)], SitePower(1_000, (7_000,)), DRAW, None, 1_000
    )
    assert {it.basis for it in parts} == {Basis.METERED}
    assert [it.energy.expected for it in parts] == [KWH, 0]
    assert total(parts).energy == Range(KWH, KWH, KWH)
    assert total(parts).embodied_mg is None, "what is not known is not zero"


def test_the_hours_of_the_day_decide():
    eleven, noon = ([(KWH, hour * HOUR_MS, HOUR_MS)] for hour in (11, 12))
    told = [total(use_of(it, CLEAN_AT_NOON, None, None, 1_000)) for it in (eleven, noon)]
    assert [it.operational.expected for it in told] == [480_000, 120_000]
    between = [(KWH, 11 * HOUR_MS + HOUR_MS // 2, HOUR_MS)]
    use = total(use_of(between, CLEAN_AT_NOON, None, None, 1_000))
    assert use.operational.expected == footprint(KWH, *between[0][1:], CLEAN_AT_NOON).operational_mg
    assert use.operational.expected == 300_000


def test_without_meter_and_watts_nothing_is_said_of_energy():
    (use,) = use_of([(0, 0, HOUR_MS)], CLEAN_AT_NOON, None, MADE, 1_000)
    assert use == EnergyUse(None, embodied_mg=150_000_000 // 35_040)


OF = Told("l1", "projects/p/jobs/j", "n1", "sites/a", "H100-80GB", "SPOT", 1_000, 5)


def telling(use, number=1, power=CLEAN_AT_NOON, embodied=MADE):
    return Telling(OF, number, 5, 5 + HOUR_MS, use, power, embodied, DRAW.source)


def test_tellings_sum_to_the_whole_however_they_are_cut():
    site = SitePower(1_234, (431_000,))
    spans = [HOUR_MS // 7, HOUR_MS // 3, HOUR_MS]
    told = []
    for number, span_ms in enumerate(spans, start=1):
        whole = total(use_of([(0, 5, span_ms)], site, DRAW, MADE, 1_000))
        told.append(telling(beyond(whole, told), number, site))
    assert total([it.use for it in told]) == whole
    nothing = beyond(whole, told)
    assert not nothing.energy.high
    assert not nothing.operational.high
    assert nothing.embodied_mg == 0


RUN = Line(
    "l1", "projects/p/jobs/j", "n1", 1, "run", "H100-80GB", "SPOT", 1_000, 3_600 * 10**9, 1,
    3_600 * 10**9, 3_600 * 10**9, 3_600 * 10**9, 3_600 * 10**9, 5, site="sites/a", ends_ms=HOUR_MS,
    source="line/l1/1/run/usage",
)  # fmt: skip


def document(*more, use=None):
    use = use or total(use_of([(0, 5, HOUR_MS)], CLEAN_AT_NOON, DRAW, MADE, 1_000))
    head = Head("invoices/i", "GL-2026-000001", "tenants/t", "projects/p", "", 9, state=FINAL)
    return compose(head, [RUN, *more, *information(telling(use))])


def test_lines_that_tell_cost_nothing_and_say_what_they_rest_on():
    invoice = document()
    told = {it.meter: it for it in invoice.lines if it.kind == "INFORMATION"}
    assert set(told) == {"site_energy", "carbon", "embodied"}
    assert {it.amount_nano for it in told.values()} == {0}
    assert told["site_energy"].note == "estimated; 0.12..0.48 kWh; PUE 1.2; a data sheet"
    assert told["carbon"].note.startswith("estimated; ")
    assert told["carbon"].note.endswith("g; 100..400 g/kWh")
    assert told["embodied"].note == "±50 %; 150000 g / 4 a; a study"
    assert invoice.total_nano == RUN.amount_nano
    assert invoice == document(), "from the same figures, the same bytes"


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "en",
            ("Energy drawn at the site: estimated; 0.12..0.48 kWh", "0.3 kWh", "Grid emissions"),
        ),
        ("zh", ("站点用电: 估算; 0.12..0.48 kWh", "0.3 kWh", "电网排放", "制造排放分摊")),
    ],
)
def test_they_stand_in_the_text_in_both_languages(language, words):
    text = invoice_text.as_text(document(), language).decode()
    for each in words:
        assert each in text


def test_they_stand_in_json_and_csv():
    assert b'"meter": "site_energy"' in as_json(document())
    assert b"INFORMATION,carbon,l1,0," in as_csv(document())


def test_a_cost_tool_finds_their_sums_on_the_rows_of_run_time():
    """Two segments share by time, to the milligram; information is no row of its own."""
    second = replace(
        RUN, segment=2, charged_ns=RUN.charged_ns // 2, counter_ns=RUN.charged_ns // 2,
        amount_nano=RUN.amount_nano // 2, source="line/l1/2/run/usage",
    )  # fmt: skip
    counted = replace(
        RUN, meter="energy", charged_ns=KWH // 4, counter_ns=KWH // 4, rate_nano_per_hour=0,
        amount_nano=0, source="meter/l1/1/energy", note="not priced",
    )  # fmt: skip
    invoice = document(second, counted)
    rows = focus_rows(invoice)
    assert len(rows) == 3
    told = {it.meter: it.charged_ns for it in invoice.lines if it.kind == "INFORMATION"}
    grams = [it["x_CarbonGrams"] for it in rows if it["x_CarbonGrams"]]
    assert sum(round(float(it) * 1_000) for it in grams) == told["carbon"] + told["embodied"]
    energy = [it["x_EnergyKwh"] for it in rows if it["x_EnergyKwh"]]
    assert len(energy) == 2, "what the site drew is not told beside what the device counted"
    assert sum(round(float(it) * KWH) for it in energy) == told["site_energy"]
    assert as_focus(invoice)


def test_where_only_the_device_is_known_its_count_is_told():
    counted = replace(
        RUN, meter="energy", charged_ns=KWH // 4, counter_ns=KWH // 4, rate_nano_per_hour=0,
        amount_nano=0, source="meter/l1/1/energy", note="not priced",
    )  # fmt: skip
    head = Head("invoices/i", "GL-2026-000001", "tenants/t", "projects/p", "", 9, state=FINAL)
    rows = focus_rows(compose(head, [RUN, counted]))
    assert [it["x_EnergyKwh"] for it in rows] == ["0.25", None]


def test_what_came_late_without_run_time_is_told_on_its_first_row():
    late = replace(
        RUN, meter="energy", kind="CORRECTION", charged_ns=KWH // 4, rate_nano_per_hour=0,
        amount_nano=0, source="line/l1/1/energy/correction/9",
    )  # fmt: skip
    use = total(use_of([(KWH // 4, 5, HOUR_MS)], CLEAN_AT_NOON, DRAW, None, 1_000))
    head = Head("invoices/i", "GL-2026-000001", "tenants/t", "projects/p", "", 9, state=FINAL)
    (row,) = focus_rows(compose(head, [late, *information(telling(use, 2, embodied=None))]))
    assert row["x_EnergyKwh"] == "0.3"
    assert row["x_CarbonGrams"]


def test_storage_stands_in_gigabyte_hours():
    stored = replace(
        RUN, meter="storage", charged_ns=1_800 * 10**9, counter_ns=1_800 * 10**9,
        rate_nano_per_hour=0, amount_nano=0, source="meter/l1/1/storage", note="not priced",
    )  # fmt: skip
    assert "0.5 GB h" in invoice_text.as_text(document(stored), "en").decode()
