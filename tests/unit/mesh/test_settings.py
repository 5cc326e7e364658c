"""Settings: typed, named in their faults, never guessed."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from gridlease_kernel.faults import Invalid
from gridlease_mesh import settings


@dataclass(frozen=True, slots=True)
class Sample:
    nats_url: str
    grant_s: int = 120
    ratio: float = 0.5
    strict: bool = False
    folder: Path | None = None


def test_defaults_and_types():
    assert settings.read(Sample, {"GRIDLEASE_NATS_URL": "nats://x"}) == Sample("nats://x")
    environ = {
        "GRIDLEASE_NATS_URL": "nats://y",
        "GRIDLEASE_GRANT_S": "6",
        "GRIDLEASE_RATIO": "0.25",
        "GRIDLEASE_STRICT": "yes",
        "GRIDLEASE_FOLDER": "/x/y",
    }
    assert settings.read(Sample, environ) == Sample("nats://y", 6, 0.25, True, Path("/x/y"))


def test_empty_means_none_for_optionals():
    environ = {"GRIDLEASE_NATS_URL": "x", "GRIDLEASE_FOLDER": ""}
    assert settings.read(Sample, environ).folder is None


@pytest.mark.parametrize(
    ("variable", "text"),
    [("GRIDLEASE_GRANT_S", "1.5"), ("GRIDLEASE_RATIO", "x"), ("GRIDLEASE_STRICT", "maybe")],
)
def test_malformed(variable, text):
    with pytest.raises(Invalid) as caught:
        settings.read(Sample, {"GRIDLEASE_NATS_URL": "x", variable: text})
    assert caught.value.field == variable


def test_missing():
    with pytest.raises(Invalid) as caught:
        settings.read(Sample, {})
    assert caught.value.reason == "SETTING_MISSING"
    assert caught.value.field == "GRIDLEASE_NATS_URL"
