"""A host's energy counters, which root alone may open: handed over open, and by name alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from gridlease_agent.sampling.host import HostSampler, energy_file, energy_zones, open_energy
from gridlease_agent.sampling.kept import KeptFiles
from gridlease_kernel.faults import Invalid


def _package(root: Path) -> Path:
    file = root / energy_file("intel-rapl:0")
    file.parent.mkdir(parents=True)
    (file.parent.parent / "intel-rapl:0:0").mkdir()  # a part of the package, counted with it
    file.write_text("1000000\n")
    return file


def test_power_is_read_from_a_file_that_was_handed_over(tmp_path: Path) -> None:
    file = _package(tmp_path)
    assert energy_zones(tmp_path) == ("intel-rapl:0",)
    number = open_energy("intel-rapl:0", tmp_path)
    assert number is not None
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / energy_file("intel-rapl:0")).parent.mkdir(parents=True)
    files = KeptFiles(hidden)  # as a core sees it: the folder, and no file that it may open
    files.keep(energy_file("intel-rapl:0"), number)
    sampler = HostSampler(files)
    sampler.read(1_000_000_000)
    file.write_text("3000000\n")
    assert sampler.read(2_000_000_000).power_mw == 2_000
    files.close()


@pytest.mark.parametrize("zone", ["", "..", "intel-rapl:0/../../x", "/etc/shadow", "a:0\n"])
def test_nothing_else_is_opened(zone: str) -> None:
    with pytest.raises(Invalid):
        open_energy(zone)


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert open_energy("intel-rapl:7", tmp_path) is None
    assert energy_zones(tmp_path) == ()
