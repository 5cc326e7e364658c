"""Published traces replay whole: skipped where the data is not at hand."""

from pathlib import Path

import pytest
from gridlease_simulate.outcome import STATES
from gridlease_simulate.study import Study, play

from .small import recount

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
GAVEL = """
[[nodes]]
name = "v100"
count = 3
chip = "V100"
devices = 4
[[nodes]]
name = "p100"
count = 3
chip = "P100"
devices = 4
[[nodes]]
name = "k80"
count = 3
chip = "K80"
devices = 4
"""


def data(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name} beside the project")
    return path


def whole(run, jobs):
    assert len(run.jobs) == jobs
    assert sum(run.count(state) for state in STATES) == jobs
    assert run.count("waiting") == run.count("running") == 0
    assert not recount(run)


@pytest.mark.parametrize("share", [1, 4])
def test_alibabas_pods_on_alibabas_nodes(share):
    folder = "alibaba-gpu-v2023"
    study = Study(
        data(f"{folder}/nodes.csv.gz"),
        data(f"{folder}/pods_default.csv.gz"),
        limit=500,
        load_percent=10_000,
        share=share,
    )
    whole(play(study)["gridlease"], 500)


def test_gavels_jobs_and_a_plain_queue(tmp_path):
    cluster = tmp_path / "gavel.toml"
    cluster.write_text(GAVEL)
    study = Study(cluster, data("gavel/jobs_generated_seed0.csv.gz"), baseline="fifo")
    runs = play(study)
    for run in runs.values():
        whole(run, 150)
    assert runs["gridlease"].completion().mean_ms < runs["fifo"].completion().mean_ms


def test_phillys_jobs_and_spot_prices(tmp_path):
    cluster = tmp_path / "two.toml"
    cluster.write_text('[[nodes]]\nname = "a"\ncount = 8\nchip = "V100"\ndevices = 8\n')
    spot = data("aws-spot-prices/prices.csv.gz")
    study = Study(cluster, data("philly/jobs.csv.gz"), limit=400, spot_prices=spot)
    runs = play(study)
    whole(runs["gridlease"], 400)
    assert play(study)["gridlease"] == runs["gridlease"]
