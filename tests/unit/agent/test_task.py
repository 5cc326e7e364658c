from __future__ import annotations

from dataclasses import replace

import pytest
from gridlease_agent.domain.chips import chip_name, cpu_chip
from gridlease_agent.domain.spool import Row
from gridlease_agent.domain.task import (
    Task,
    end_reason,
    environment,
    overtime,
    scratch,
    told,
    wanted,
)

TASK = Task("ls-1", "projects/p/jobs/j/tasks/0", "tenants/t", env=(("A", "1"), ("RANK", "9")))
ROW = Row("ls-1", (), "boot", 0, 0, ready_ns=1_000)
GB = 1 << 30


def test_our_variables_stand_over_the_tenants() -> None:
    env = dict(environment(TASK, "n-1"))
    assert env["A"] == "1"
    assert env["RANK"] == "0"
    assert env["GRIDLEASE_JOB"] == "projects/p/jobs/j"
    assert env["GRIDLEASE_NODE"] == "n-1"
    assert "TRACEPARENT" not in env


def test_a_member_of_a_gang_knows_its_rank_and_its_peers() -> None:
    member = replace(TASK, gang_index=1, hosts=("a", "b"), checkpoint="step-9")
    env = dict(environment(member, "n-1"))
    assert (env["RANK"], env["WORLD_SIZE"], env["MASTER_ADDR"]) == ("1", "2", "a")
    assert (env["GRIDLEASE_HOSTS"], env["GRIDLEASE_CHECKPOINT"]) == ("a,b", "step-9")
    alone = dict(environment(TASK, "n-1"))
    assert (alone["WORLD_SIZE"], alone["MASTER_ADDR"]) == ("1", "127.0.0.1")
    assert not {"GRIDLEASE_HOSTS", "GRIDLEASE_CHECKPOINT"} & set(alone)


def test_a_task_knows_where_to_report_and_how_long_its_place_is_promised() -> None:
    env = dict(environment(replace(TASK, promised_until="2026-11-22T19:00:00Z"), "n-1"))
    assert env["GRIDLEASE_REPORT_DIR"] == "/work/.gridlease"
    assert env["GRIDLEASE_PROMISED_UNTIL"] == "2026-11-22T19:00:00Z"
    assert "GRIDLEASE_PROMISED_UNTIL" not in dict(environment(TASK, "n-1"))


def test_a_lease_holds_its_scratch_folder() -> None:
    assert wanted(TASK).devices == (scratch("ls-1"),)


def test_overtime_counts_from_ready() -> None:
    task = Task("ls-1", "", "", max_duration_ms=1, notice_ms=2)
    assert overtime(ROW, task, 1_000_999) is None
    late = overtime(ROW, task, 1_001_000)
    assert late is not None
    assert late.by_ns == 3_001_000
    assert overtime(ROW, TASK, 10**18) is None


@pytest.mark.parametrize(
    ("row", "reason", "said"),
    [
        (
            Row("l", (), "b", 0, 0, last=True, reason="BUDGET_EXHAUSTED"),
            "DEADLINE",
            "BUDGET_EXHAUSTED",
        ),
        (Row("l", (), "b", 0, 0, last=True, reason="BUDGET_EXHAUSTED"), "EXITED", "EXITED"),
        (Row("l", (), "b", 0, 0, stop_at_ns=1, last=True, reason="X"), "STOPPED", "STOPPED"),
        (Row("l", (), "b", 0, 0), "DEADLINE", "DEADLINE"),
    ],
)
def test_why_a_sandbox_ended(row: Row, reason: str, said: str) -> None:
    assert end_reason(row, None, reason, 5) == said


def test_what_is_told_is_in_the_contract() -> None:
    assert told("START_BY_PASSED", "")[0] == "NEVER_STARTED"
    assert told("SHIM_LOST", "x") == ("START_LOST", "x")
    assert told("EXITED", "") == ("EXITED", "")


@pytest.mark.parametrize(
    ("name", "size", "chip"),
    [
        ("NVIDIA A100-SXM4-80GB", 80 * GB, "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 39.6 * GB, "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", 79.3 * GB, "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", 79.6 * GB, "H100-80GB"),
        ("NVIDIA H200", 140.4 * GB, "H200-141GB"),
        ("NVIDIA B200", 179 * GB, "B200-180GB"),
        ("Tesla T4", 15 * GB, "T4-16GB"),
        ("Tesla V100-SXM2-16GB", 15.8 * GB, "V100-16GB"),
        ("NVIDIA L40S", 45 * GB, "L40S-48GB"),
        ("NVIDIA L4", 22.5 * GB, "L4-24GB"),
        ("NVIDIA GeForce RTX 3090", 24 * GB, "RTX-3090-24GB"),
        ("NVIDIA Jetson AGX Orin 64GB", 64 * GB, "jetson-agx-orin"),
        ("TPU v5e", 16 * GB, "tpu-v5e"),
        ("AMD Alveo U250", 64 * GB, "alveo-u250"),
    ],
)
def test_vendors_names_become_the_catalogues(name: str, size: float, chip: str) -> None:
    assert chip_name(name, round(size)) == chip


def test_cpus_bear_their_architecture() -> None:
    assert cpu_chip("x86_64") == "cpu-x86-64"
    assert cpu_chip("aarch64") == cpu_chip("arm64") == "cpu-aarch64"
