"""The page of job files names every key, and its example is one."""

import re
from pathlib import Path

from gridlease_sdk import jobfile

PAGE = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")


def keys_of_the_tables() -> set[str]:
    rows = re.findall(r"^\| (`[^|]+`) \|", PAGE, re.MULTILINE)
    return {key.partition(".")[0] for row in rows for key in re.findall(r"`([a-z_.]+)`", row)}


def test_the_tables_name_each_key_and_no_other():
    assert keys_of_the_tables() == {*jobfile.KEYS}


def test_the_example_is_a_job(tmp_path):
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    spec = jobfile.parse(example.encode(), tmp_path).spec
    assert spec.nodes.min == 4
    assert len(spec.resources.alternatives) == 1
