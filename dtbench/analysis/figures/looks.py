"""One colour and one marker for each contender, the same in every figure and suite."""

import hashlib
from collections.abc import Mapping, Sequence

INK = "#1b1f24"  # as in report/dtbench.mplstyle
WALKS = "#b9bfc7"

# From Okabe & Ito (2008) and Tol's schemes, chosen so that those who meet in a shipped suite are told apart by the
# colour-blind (tests/test_looks.py) and seen on white and on black; a marker of its own goes with each.
_BY_NAME = {
    "DT": ("#0072B2", "o"),
    "CQL": ("#D55E00", "D"),
    "BC": ("#CCBB44", "s"),
    "BC 10%": ("#994455", "^"),
    "BC 25%": ("#5AAE61", "v"),
    "BC 40%": ("#EE99AA", "P"),
    "BC 100%": ("#CCBB44", "s"),  # is BC
    "BC successful": ("#66CCEE", ">"),
    "CQL history": ("#5AAE61", "<"),
    "IQL": ("#66CCEE", "P"),
    "TD3+BC": ("#44AA99", "v"),
    "QR-DQN": ("#CC6677", "v"),
    "REM": ("#33BBEE", "^"),
    "Random": ("#8a8f98", "X"),
    "DT predicting returns": ("#7744CC", "p"),
    "DT sampled": ("#66CCEE", "p"),
    "DT K=1": ("#66CCEE", "v"),
    "DT K=5": ("#994455", "^"),
    "DT by timestep": ("#E69F00", "s"),
    "DT by timestep, longer": ("#66CCEE", "^"),
    "DT 3 steps": ("#BB5566", "v"),
    "CQL penalty 0.1": ("#CC3311", "P"),
    "CQL history, penalty 0.1": ("#DDCC77", "<"),
}
PALETTE = ("#0072B2", "#D55E00", "#CCBB44", "#994455", "#5AAE61", "#66CCEE", "#EE99AA", "#44AA99", "#AA4499")
MARKERS = "osD^vPX<>phd*"


def colours(contenders: Sequence[str]) -> dict[str, str]:
    """A colour for each name: the same in every figure and suite, unless two names of a suite fall on one colour."""
    return _chosen(contenders, {name: colour for name, (colour, _) in _BY_NAME.items()}, PALETTE)


def markers(contenders: Sequence[str]) -> dict[str, str]:
    """A marker for each name, by the same rule."""
    return _chosen(contenders, {name: marker for name, (_, marker) in _BY_NAME.items()}, MARKERS)


def _chosen(names: Sequence[str], fixed: Mapping[str, str], pool: Sequence[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for name in names:
        if name in fixed and fixed[name] not in chosen.values():
            chosen[name] = fixed[name]
    for name in names:
        if name not in chosen:
            first = int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(pool)
            ring = [*pool[first:], *pool[:first]]
            chosen[name] = next((one for one in ring if one not in chosen.values()), ring[0])
    return chosen
