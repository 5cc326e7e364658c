"""Job files: what users type, and twenty ways to get it wrong."""

import pytest
from gridlease.type.v1 import job_pb2 as types
from gridlease_kernel.faults import Fault, Invalid, Missing, TooLarge
from gridlease_sdk import jobfile, placement

GB = 1 << 30
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@laptop"

FULL = b"""
type: task
name: train-digits
commands:
  - python train.py --epochs 5
resources:
  cpus: 4+
  memory: 32..64
  disk: 100GB
  gpu: A100:80GB:8
nodes: 1
priority: 40
tier: spot
purpose: training
max_duration: 2h
budget: 1.50
max_price: 12
env:
  EPOCHS: 5
  RATE: 0.10
workdir: .
outputs: [model.npz]
runtime: digits
lost_after: 5m
max_attempts: 2
notice: 30s
"""


def test_every_key(tmp_path):
    (tmp_path / "job.yaml").write_bytes(FULL)
    draft = jobfile.load(tmp_path / "job.yaml")
    spec = draft.spec
    assert (spec.type, spec.display_name) == (types.JOB_TYPE_TASK, "train-digits")
    resources = spec.resources
    assert (resources.cpu_milli.min, resources.cpu_milli.max) == (4_000, 0)
    assert (resources.memory_bytes.min, resources.memory_bytes.max) == (32 * GB, 64 * GB)
    assert resources.disk_bytes.min == resources.disk_bytes.max == 100 * GB
    gpu = resources.accelerator
    assert (list(gpu.chips), gpu.count.min, gpu.memory_bytes.min) == (["A100"], 8, 80 * GB)
    assert (spec.nodes.min, spec.nodes.max, spec.priority) == (1, 1, 40)
    assert (spec.tier, spec.purpose) == (types.TIER_SPOT, types.PURPOSE_TRAINING)
    assert (spec.max_duration_ms, spec.lost_after_ms, spec.notice_ms) == (
        7_200_000,
        300_000,
        30_000,
    )
    assert (spec.budget_nano, spec.max_price_nano_per_hour) == (1_500_000_000, 12_000_000_000)
    assert dict(spec.env) == {"EPOCHS": "5", "RATE": "0.10"}
    assert (list(spec.outputs), spec.runtime, spec.max_attempts) == (["model.npz"], "digits", 2)
    assert draft.files == {".": tmp_path}


@pytest.mark.parametrize(
    ("text", "chips", "count"),
    [
        ("{accelerators: 'H100:8'}", ["H100"], 8),
        ("{accelerators: {H100: 8}}", ["H100"], 8),
        ("{gpu: {name: [A10G, A100], count: 2}}", ["A10G", "A100"], 2),
        ("{gpu: [A10G, A100]}", ["A10G", "A100"], 1),
        ("{gpu: 2}", [], 2),
        ("{gpus: 'nvidia:24GB..'}", [], 1),
    ],
)
def test_habits_of_others(text, chips, count):
    draft = jobfile.parse(f"run: python x.py\nresources: {text}".encode())
    gpu = draft.spec.resources.accelerator
    assert (list(gpu.chips), gpu.count.min) == (chips, count)
    assert list(draft.spec.commands) == ["python x.py"]


def test_json_and_lists_of_assignments():
    draft = jobfile.parse(b'{"commands": ["x"], "envs": ["A=1", "B=2=3"], "name": null}')
    assert dict(draft.spec.env) == {"A": "1", "B": "2=3"}


BAD = [
    (b"comands: [x]", "UNKNOWN_KEY", "comands", "'commands'"),
    (b"commands: [x]\nresources: {memry: 1GB}", "UNKNOWN_KEY", "resources.memry", "'memory'"),
    (b"commands: [x]\nimages: busybox", "UNKNOWN_KEY", "images", "Known:"),
    (b"name: x", "COMMANDS_MISSING", "commands", "list"),
    (b"commands: [", "BROKEN_YAML", "file:1", "Correct that line"),
    (b"commands:\n\t- x", "BROKEN_YAML", "file:2", "spaces"),
    (b"commands: [x]\ncommands: [y]", "BROKEN_YAML", "file:2", "Correct"),
    (b"commands: [caf\xe9]", "NOT_UTF8", "file", "UTF-8"),
    (b"- x", "NOT_A_MAPPING", "file", "commands"),
    (b"", "NOT_A_MAPPING", "file", "commands"),
    (b"x" * ((1 << 20) + 1), "FILE_TOO_LARGE", "file", "workdir"),
    (b"[" * 9_000, "BROKEN_YAML", "file", "Correct"),
    (b"commands: !!python/object/apply:os.system [id]", "BROKEN_YAML", "file:1", "Correct"),
    (b"commands: [x]\nresources: {memory: -8GB}", "BAD_SIZE", "resources.memory", "8GB"),
    (b"commands: [x]\nresources: {memory: 9999999PB}", "BAD_SIZE", "resources.memory", "8GB"),
    (b"commands: [x]\nresources: {cpu: many}", "BAD_CPU", "resources.cpu", "0.25"),
    (b"commands: [x]\nresources: {gpu: 4090}", "BAD_GPU_COUNT", "resources.gpu", "RTX4090"),
    (b"commands: [x]\nresources: {gpu: 'A100:0'}", "BAD_GPU_COUNT", "resources.gpu", "Leave"),
    (b"commands: [x]\nresources: {gpu: 'a;b'}", "BAD_GPU", "resources.gpu", "A100:80GB:8"),
    (b"commands: [x]\nresources: {disk: 9GB..1GB}", "BAD_RANGE", "resources.disk", "8..16"),
    (b"commands: [x]\nbudget: lots", "BAD_MONEY", "budget", "1.50"),
    (b"commands: [x]\nbudget: -1", "BAD_MONEY", "budget", "1.50"),
    (b"commands: [x]\nmax_duration: soon", "BAD_DURATION", "max_duration", "2h"),
    (b"commands: [x]\npriority: 1000", "OUT_OF_RANGE", "priority", "100"),
    (b"commands: [x]\npriority: high", "WRONG_TYPE", "priority", "whole number"),
    (b"commands: [x]\ntier: cheap", "UNKNOWN_VALUE", "tier", "spot"),
    (b"commands: [x]\nname: 7", "WRONG_TYPE", "name", "quotes"),
    (b"commands: {a: b}", "WRONG_TYPE", "commands", "list"),
    (b"commands: [x]\nenv: {A: true}", "WRONG_TYPE", "env.A", "quotes"),
    (b"commands: [x]\nenv: [novalue]", "BAD_ASSIGNMENT", "env[0]", "NAME=VALUE"),
    (b'commands: ["a\\0b"]', "BAD_TEXT", "commands[0]", "zero"),
    (b'commands: ["\\ud800"]', "BAD_TEXT", "commands[0]", "surrogates"),
    (b"commands: [x]\nrun: y", "DUPLICATE_KEY", "run", "Keep one"),
    (b"commands: [x]\nworkdir: nowhere", "FILE_NOT_FOUND", "workdir", "job file's folder"),
    (b"commands: [x]\nnodes: 0.5", "BAD_COUNT", "nodes", "whole number"),
    (b"commands: [x]\nspan: room", "UNKNOWN_VALUE", "span", "rack"),
    (b"commands: [x]\nlatency: soon", "BAD_DURATION", "latency", "2h"),
    (b"commands: [x]\nsoftware: cuda", "WRONG_TYPE", "software", "12.4"),
    (b"commands: [x]\nsoftware: {targets: [sm_80]}", "TOOLKIT_MISSING", "software", "rocm"),
    (b"commands: [x]\nsoftware: {cuda: 12, rocm: 6}", "TOOLKITS_CONTRADICT", "software", "cuda"),
    (b"commands: [x]\nsoftware: {cuda: '12', compat: 1}", "WRONG_TYPE", "software.compat", "yes"),
    (b"commands: [x]\nnetwork: {guaranteed: fast}", "BAD_SPEED", "network.guaranteed", "10Gbit"),
    (b"commands: [x]\nnetwork: {class: vip}", "UNKNOWN_VALUE", "network.class", "critical"),
    (b"commands: [x]\nnetwork: {speed: 1}", "UNKNOWN_KEY", "network.speed", "guaranteed"),
    (b"commands: [x]\nnetwork: {egress: all}", "UNKNOWN_VALUE", "network.egress", "public"),
    (
        b"commands: [x]\nnetwork: {egress: listed}",
        "EGRESS_CONTRADICTS", "network.egress_to", "203.0.113.7:443",
    ),
    (
        b"commands: [x]\nnetwork: {egress: peers, egress_to: [203.0.113.7]}",
        "EGRESS_CONTRADICTS", "network.egress_to", "listed",
    ),
    (
        b"commands: [x]\nnetwork: {egress_to: [example.org]}",
        "BAD_ADDRESS", "network.egress_to[0]", "198.51.100.0/24:443",
    ),
    (b"commands: [x]\nlow_carbon: 1", "WRONG_TYPE", "low_carbon", "yes or no"),
    (b"commands: [x]\nbatch_size: some", "BAD_COUNT", "batch_size", "whole number"),
    (b"commands: [x]\nautoscale: {max: 2}", "KEY_MISSING", "autoscale.in_flight", "in_flight: 4"),
    (b"commands: [x]\nautoscale: 3", "WRONG_TYPE", "autoscale", "in_flight"),
    (b"commands: [x]\non_preemption: cry", "UNKNOWN_VALUE", "on_preemption", "requeue"),
    (b"commands: [x]\nresources: {any_of: A100}", "WRONG_TYPE", "resources.any_of", "H100:8"),
    (b"commands: [x]\nresources: {any_of: []}", "WRONG_TYPE", "resources.any_of", "H100:8"),
    (
        b"commands: [x]\nresources: {any_of: ['A100:0']}",
        "BAD_GPU_COUNT", "resources.any_of[0]", "Leave",
    ),
    (
        b"commands: [x]\nresources: {gpu: A100, ordered: [H100]}",
        "DEVICES_CONTRADICT", "resources.ordered", "Keep one",
    ),
    (
        b"commands: [x]\nresources: {ordered: [A, B, C, D, E, F, G, H, I, J]}",
        "TOO_MANY_CHOICES", "resources.ordered", "best",
    ),
]  # fmt: skip


PLACED = b"""
commands: [python train.py]
resources: {ordered: ["H100:8", "A100:80GB:8", {name: TPUv4, count: 4}]}
nodes: 2..8
span: rack
latency: 20ms
software: {cuda: 12.4, targets: [sm_80, sm_90], compat: true}
network: {guaranteed: 2.5Gbit, class: critical, latency: 200us, egress_to: ['203.0.113.7:443']}
low_carbon: true
deferrable: 6h
batch_size: 128..4096
reservation: rs-abc
min_runtime: 20m
on_preemption: fail
expected_duration: 3h
"""


def test_every_key_about_where_and_when():
    spec = jobfile.parse(PLACED).spec
    resources = spec.resources
    assert list(resources.accelerator.chips) == ["H100"]
    assert [(list(it.chips), it.count.min) for it in resources.alternatives] == [
        (["A100"], 8), (["TPUv4"], 4),
    ]  # fmt: skip
    assert resources.alternatives_ordered
    assert (spec.nodes.min, spec.nodes.max, spec.span) == (2, 8, types.SPAN_RACK)
    assert spec.latency_target_us == 20_000
    software = spec.software
    assert (software.toolkit, software.version) == ("cuda", "12.4")
    assert (list(software.targets), software.carries_compat) == (["sm_80", "sm_90"], True)
    network = spec.network
    assert (network.guaranteed_mbps, network.latency_us) == (2_500, 200)
    assert network.network_class == types.NETWORK_CLASS_CRITICAL
    assert (network.egress, list(network.egress_to)) == (types.EGRESS_LISTED, ["203.0.113.7:443"])
    assert (spec.low_carbon, spec.deferrable_ms) == (True, 21_600_000)
    assert (spec.batch_size.min, spec.batch_size.max) == (128, 4_096)
    assert spec.reservation == "reservations/rs-abc"
    assert (spec.min_runtime_ms, spec.expected_duration_ms) == (1_200_000, 10_800_000)
    assert spec.preemption_policy == types.PREEMPTION_POLICY_FAIL


def test_a_service_follows_its_load():
    spec = jobfile.parse(
        b"commands: [serve]\ntype: service\n"
        b"autoscale: {max: 8, in_flight: 4, idle_after: 90s}\nresources: {any_of: [L4]}"
    ).spec
    scale = spec.autoscale
    assert (scale.min_replicas, scale.max_replicas, scale.target_in_flight) == (0, 8, 4)
    assert scale.idle_after_ms == 90_000
    assert not spec.resources.alternatives_ordered
    assert not spec.resources.alternatives


@pytest.mark.parametrize(
    ("words", "mbps"),
    [("500", 500), ("500Mbit", 500), ("10Gbit/s", 10_000), ("1.5 g", 1_500), ("2000kbps", 2)],
)
def test_speeds(words, mbps):
    assert placement.parse_mbps(words, "x") == mbps


@pytest.mark.parametrize(("content", "reason", "field", "remedy"), BAD)
def test_each_mistake_names_its_key_and_the_remedy(content, reason, field, remedy, tmp_path):
    with pytest.raises(Fault) as caught:
        jobfile.parse(content, tmp_path)
    assert isinstance(caught.value, (Invalid, Missing, TooLarge))
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert remedy in caught.value.remedy


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Missing) as caught:
        jobfile.load(tmp_path / "none.yaml")
    assert caught.value.reason == "FILE_NOT_FOUND"
    with pytest.raises(Invalid) as unreadable:
        jobfile.load(tmp_path)
    assert unreadable.value.reason == "FILE_UNREADABLE"


def test_aliases_that_multiply_do_not_explode():
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(Invalid) as caught:
        jobfile.parse("\n".join([*lines, "commands: *a39"]).encode())
    assert len(str(caught.value)) < 2_000


def test_a_dev_environment_needs_no_commands():
    spec = jobfile.read({"type": "dev-environment", "idle_stop": "2h", "ssh_keys": [KEY]}).spec
    assert list(spec.commands) == ["exec sleep infinity"]
    assert (spec.idle_stop_ms, list(spec.ssh_keys)) == (7_200_000, [KEY])
    (command,) = jobfile.read({"type": "dev-environment", "jupyter": True}).spec.commands
    assert "exec jupyter lab" in command
    assert "/work/.jupyter-token" in command


@pytest.mark.parametrize("given", [{"jupyter": True}, {"idle_stop": "1h"}, {"ssh_keys": [KEY]}])
def test_what_a_dev_environment_has_no_task_has(given):
    with pytest.raises(Invalid) as caught:
        jobfile.read({"commands": ["true"], **given})
    assert (caught.value.reason, caught.value.field) == ("DEV_ENVIRONMENT_ONLY", next(iter(given)))


def test_an_image_may_run_what_it_runs_by_itself():
    spec = jobfile.parse(b"image: registry.example/team/app:v1").spec
    assert (list(spec.commands), spec.image) == ([], "registry.example/team/app:v1")
