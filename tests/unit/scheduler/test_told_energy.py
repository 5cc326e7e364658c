"""What billing and the gateway are told of the power of chips and sites."""

from gridlease_scheduler.adapters import catalogue
from gridlease_scheduler.domain.snapshot import Site
from gridlease_scheduler.wire.energy import draws, site_energy


def test_each_chip_is_told_once_with_its_watts_and_what_making_it_emitted():
    told = draws(["H100-80GB", "cpu-x86-64", "H100-80GB", "unheard-of"], catalogue.load())
    assert [it.chip for it in told] == ["H100-80GB", "cpu-x86-64"]
    chip = told[0]
    assert 0 < chip.idle_mw < chip.peak_mw == 700_000
    assert (chip.embodied.carbon_g, chip.embodied.uncertainty_permille) == (164_000, 500)
    assert chip.source
    assert chip.embodied.source
    assert not told[1].HasField("embodied")


def test_a_site_of_which_nothing_is_known_is_not_told():
    assert site_energy(Site("a")) is None
    told = site_energy(Site("b", pue_milli=1_300, carbon_mg_per_kwh=(7,)))
    assert (told.site, told.pue_milli, list(told.carbon_mg_per_kwh)) == ("sites/b", 1_300, [7])
