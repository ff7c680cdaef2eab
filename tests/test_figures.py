"""Figures: one colour for each contender, wherever it appears."""

from dtbench.analysis.figures import colours

SIX = ["DT", "BC", "BC 10%", "TD3+BC", "IQL", "CQL"]


def test_the_six_gym_contenders_have_six_colours_everywhere() -> None:
    found = colours(SIX)
    assert len(set(found.values())) == 6
    assert {name: colours([name])[name] for name in SIX} == found


def test_names_that_share_a_colour_are_told_apart_where_they_meet() -> None:
    assert colours(["BC 100%"]) == {"BC 100%": colours(["BC"])["BC"]}
    assert len(set(colours(["BC", "BC 100%"]).values())) == 2
