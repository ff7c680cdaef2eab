"""One colour and one marker for each contender, which everyone can distinguish."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from dtbench.analysis.figures.style import colours, markers
from dtbench.ledger.families import FAMILIES

SIX = ["DT", "BC", "BC 10%", "TD3+BC", "IQL", "CQL"]
ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
NEAREST = 18.0  # CIE76 distance in Lab; 2 or 3 is the smallest difference that an eye sees side by side

# Machado, Oliveira & Fernandes (2009), severity 1: linear RGB as seen.
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colour: str, sight: str) -> NDArray[np.float64]:
    """CIE L*a*b* of a colour of sRGB as somebody with this sight sees it."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(SIGHT[sight] @ linear, 0, 1) / WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contenders_of(sweep: Path) -> list[str]:
    return list(yaml.safe_load(sweep.read_text()).get("contenders") or {})


def test_the_lightness_of_grey_is_worked_by_hand() -> None:
    assert lab("#777777", "full") == pytest.approx([50.03, 0, 0], abs=0.02)  # as in any table of L*


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_contenders_of_a_shipped_suite_are_distinguished_by_the_colour_blind(sweep: Path, sight: str) -> None:
    found = colours(contenders_of(sweep))
    for one, other in combinations(found, 2):
        distance = float(np.linalg.norm(lab(found[one], sight) - lab(found[other], sight)))
        assert distance >= NEAREST, f"{one} and {other}: {distance:.0f}"


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_contenders_of_a_shipped_suite_have_a_marker_each(sweep: Path) -> None:
    found = markers(contenders_of(sweep))
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_no_contender_of_a_shipped_suite_fades_into_the_page(sweep: Path) -> None:
    for name, colour in colours(contenders_of(sweep)).items():
        assert 35 < lab(colour, "full")[0] < 82, name  # white is 100, the dark page about 5


def test_the_six_gym_contenders_look_the_same_everywhere() -> None:
    for looks in (colours, markers):
        found = looks(SIX)
        assert len(set(found.values())) == 6
        assert {name: looks([name])[name] for name in SIX} == found


def test_names_that_share_a_colour_are_distinguished_where_they_meet() -> None:
    assert colours(["BC 100%"]) == {"BC 100%": colours(["BC"])["BC"]}
    assert len(set(colours(["BC", "BC 100%"]).values())) == 2


def test_a_name_that_nobody_knows_has_the_same_look_in_every_company() -> None:
    for looks in (colours, markers):
        assert looks(["My method"])["My method"] == looks(["DT", "My method"])["My method"]


def all_contenders() -> list[str]:
    """Every contender of every shipped suite and every archive."""
    archives = (json.loads(path.read_text())["suite"] for path in ROOT.glob("results/scores/*/suite.json"))
    names = [name for archive in archives for name in archive["contenders"]]
    return list(dict.fromkeys([*names, *(name for sweep in SWEEPS for name in contenders_of(sweep))]))


def test_no_two_contenders_of_all_suites_share_a_colour() -> None:
    alone = {name: colours([name])[name] for name in all_contenders()}
    assert len(set(alone.values())) == len(alone) > 20
    for one, other in combinations(alone, 2):
        distance = float(np.linalg.norm(lab(alone[one], "full") - lab(alone[other], "full")))
        assert distance >= 5, f"{one} and {other}: {distance:.0f}"
    for sweep in SWEEPS:
        assert colours(contenders_of(sweep)).items() <= alone.items()


def test_a_name_that_nobody_knows_has_the_hue_of_its_family() -> None:
    names = [f"method {number}" for number in range(30)]
    for family in ("dt", "imitation", "td", "other"):
        found = {colours([name], {name: family})[name] for name in names}
        assert 1 < len(found) <= 4
        others = {colours([name], {name: other})[name] for name in names for other in FAMILIES if other != family}
        assert not found & others
