"""Every bench runs, tiny, and its last line has the promised shape; speed is not judged here."""

import json
import subprocess
import sys

import pytest

from tests.bench.children import ROOT

RATIOS = {"calls_per_s_c64", "cpu_per_call_c64", "p50_c1"}


def bench(*words):
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def outcome(*words):
    done = bench(*words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_without_a_name_they_are_listed_a_line_each():
    done = bench()
    assert done.returncode == 0
    lines = [line.split()[0] for line in done.stdout.splitlines()[2:]]
    assert {"mesh", "telemetry"} <= set(lines)


def test_an_unknown_name_is_answered_in_a_sentence():
    done = bench("speed")
    assert done.returncode == 2
    assert "no bench named 'speed'" in done.stderr
    assert "mesh" in done.stderr
    assert done.stdout == ""


def test_mesh():
    found = outcome("mesh", "--rounds", "1", "--seconds", "0.02")
    assert found["bench"] == "mesh"
    assert found["skipped"] == []
    for ratio in ("ratio", "ratio_http_json", "ratio_http_json_aiohttp"):
        assert set(found[ratio]) == RATIOS
        assert min(found[ratio].values()) > 0
    unary = {"unary_c1", "unary_c64", "report_c1", "report_c64"}
    streams = {"server_stream", "client_stream", "bidi_stream"}
    assert set(found["results"]) == unary | streams | {"codec"}
    assert set(found["baseline"]["grpc"]) == unary | streams
    for rival in ("nats", "http_json", "http_json_aiohttp"):
        assert set(found["baseline"][rival]) == unary
    small = found["results"]["unary_c64"]
    parts = small["client_us"] + small["server_us"] + small["broker_us"]
    assert abs(small["cpu_us"] - parts) < 0.01 * parts
    assert small["broker_us"] > 0
    assert found["results"]["codec"]["small_protobuf"]["bytes"] == 14


def test_telemetry():
    found = outcome("telemetry", "--agents", "20", "--seconds", "1")
    assert found["bench"] == "telemetry"
    results = found["results"]
    assert results["lost"] == 0
    assert results["dropped"] == 0
    assert results["received"] == results["offered"] > 0
    assert 0 < results["report_bytes"] <= 2500
    assert results["broker_us_per_message"] > 0
    assert results["consumer_us_per_message"] > 0
    assert results["agents_per_core"] > 0
    assert set(found["ratio"]) == {"report_bytes", "json_bytes", "json_gzip_bytes"}


@pytest.mark.slow
@pytest.mark.root
def test_isolation():
    found = outcome("isolation", "--seconds", "3", "--classes", "2")
    results = found["results"]
    assert results["bombs_contained"]
    assert set(results["critical_flow_percent"]) == {"2"}
    for name in ("cpu_quota_error_percent", "victim_throughput_ratio", "path_switch_ms"):
        assert results[name] >= 0
    assert 0 < results["critical_flow_path_failure_percent"] <= 100
