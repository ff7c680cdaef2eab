"""Print what the shipped SAC policies' data return, beside D4RL's sets, as the table of docs/behavior-policies.md.

    python tools/behavior_policies/table.py [--steps 200000]

Replay sets are made in D4RL's size, the others of `--steps` steps, all through the store of generated data.
"""

import argparse
from collections.abc import Iterator

from dtbench.data.dataset import TrajectoryDataset, share_on_bounds
from dtbench.domains.d4rl import files, generation
from dtbench.domains.d4rl.env import WALKERS
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS

KINDS = ("random", "medium", "medium-replay", "expert")
HEAD = (
    "| set | steps, episodes | mean return (s.d.) | best episode | D4RL: mean (s.d.) | D4RL: best | on a bound |",
    "|---|---|---|---|---|---|---|",
)


def rows(steps: int) -> Iterator[str]:
    """Yield a line for each robot and kind."""
    for robot in (LOCOMOTION_ENVS[name] for name in WALKERS):
        for kind in KINDS:
            size = generation.default_steps(robot, kind) if kind == "medium-replay" else steps
            yield row(
                f"{robot.name}-{kind}",
                generation.load_generated(generation.Recording(robot, kind, size), recipe="sac"),
            )


def row(name: str, made: TrajectoryDataset) -> str:
    """One set beside D4RL's of that name."""
    known, returns = files.known_statistics(f"{name}-v2"), made.returns
    mean, best = "not known", "not known"
    if known is not None and known.return_mean is not None:
        spread = "" if known.return_std is None else f" ({known.return_std:.0f})"
        mean = f"{known.return_mean:.0f}{spread}"
        best = "not known" if known.return_max is None else f"{known.return_max:.0f}"
    return (
        f"| {name} | {made.num_steps:,}, {made.num_episodes:,} | {returns.mean():.0f} ({returns.std():.0f}) | "
        f"{returns.max():.0f} | {mean} | {best} | {share_on_bounds(made):.2%} |"
    )


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000, help="Steps of each set but replay.")
    print(*HEAD, sep="\n")
    for line in rows(parser.parse_args().steps):
        print(line, flush=True)


if __name__ == "__main__":
    main()
