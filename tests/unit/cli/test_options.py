"""Options anywhere on the line, exit codes, and output that cannot drive a terminal."""

import json

import pytest
from gridlease_cli import trouble, words
from gridlease_cli.__main__ import run
from gridlease_cli.drafts import draft
from gridlease_cli.options import Options, hoist
from gridlease_kernel import faults
from gridlease_kernel.faults import Invalid


def test_options_are_taken_wherever_they_stand():
    options = Options({})
    rest = hoist(["ps", "-o", "json", "--endpoint=h:1", "--active", "--operator"], options)
    assert rest == ["ps", "--active"]
    assert (options.format, options.endpoint, options.operator) == ("json", "h:1", True)


def test_what_follows_two_dashes_is_the_command():
    options = Options({})
    assert hoist(["submit", "--gpu", "1", "--", "cat", "-o", "x"], options) == [
        "submit", "--gpu", "1",
    ]  # fmt: skip
    assert options.command == ["cat", "-o", "x"]


@pytest.mark.parametrize("line", [["ps", "-o"], ["ps", "-o", "xml"]])
def test_bad_options(line):
    with pytest.raises(Invalid):
        hoist(line, Options({}))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (faults.Invalid, 3), (faults.Missing, 4), (faults.Unauthenticated, 5),
        (faults.Forbidden, 5), (faults.Conflict, 6), (faults.Exists, 6),
        (faults.Precondition, 6), (faults.TooLarge, 7), (faults.OverQuota, 7),
        (faults.Unreachable, 8), (faults.Late, 8),
    ],
)  # fmt: skip
def test_an_exit_code_for_each_class(kind, code):
    assert trouble.exit_code(kind("x", reason="X")) == code


def test_trouble_is_one_sentence_or_json(capsys):
    fault = Invalid("It is \x1b[31mred.", reason="RED", field="colour", remedy="Make it blue.")
    trouble.tell(fault, Options({}))
    assert capsys.readouterr().err == "gridlease: colour: It is �[31mred. Make it blue.\n"
    trouble.tell(fault, Options({}, format="json"))
    assert json.loads(capsys.readouterr().err)["error"]["reason"] == "RED"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (["--help"], 0), (["submit", "--help"], 0), (["nonsense"], 2), (["ps", "--nope"], 2),
        (["show"], 2), (["submit"], 3), (["submit", "none.yaml"], 4), (["ps", "-o", "xml"], 3),
        (["credit", "demo", "lots"], 3), (["nodes", "add", "--ttl", "soon"], 3),
    ],
)  # fmt: skip
def test_usage(line, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(line) == code
    assert "Traceback" not in capsys.readouterr().err


def test_nowhere_to_go(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("GRIDLEASE_ENDPOINT", "GRIDLEASE_API_KEY", "GRIDLEASE_CLIENT_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert run(["ps"]) == 6
    assert "./dev up" in capsys.readouterr().err


def test_options_lie_over_the_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("run: python a.py\nresources: {cpus: 2, memory: 1GB}\nenv: {A: 1}\n")
    made = draft(str(path), None, {"cpu": "4", "gpu": "A100", "name": "x", "env": ["B=2"]})
    resources = made.spec.resources
    assert (resources.cpu_milli.min, resources.memory_bytes.min) == (4_000, 1 << 30)
    assert list(resources.accelerator.chips) == ["A100"]
    assert made.spec.display_name == "x"
    assert dict(made.spec.env) == {"A": "1", "B": "2"}
    made = draft(None, ["python", "a b.py"], {})
    assert list(made.spec.commands) == ["python 'a b.py'"]
    made = draft(None, ["echo hi | wc"], {})
    assert list(made.spec.commands) == ["echo hi | wc"]
    with pytest.raises(Invalid):
        draft(str(path), ["x"], {})


def test_words():
    assert words.size(80 << 30) == "80 GB"
    assert words.milli(2_500) == "2.5"
    assert words.span(5_430_000_000_000) == "1h30m30s"
    assert words.span(1_500_000_000) == "1.500s"
    assert words.money(1_500_000_000) == "1.50 USD"
