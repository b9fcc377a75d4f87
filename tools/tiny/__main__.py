"""`python -m tools.tiny WORK`: scenes, training and the shipped folder, each step only where it is missing."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tools.tiny import scenes, train


def main() -> None:
    """Parses, then does what is missing."""
    plan = train.Plan()
    parser = argparse.ArgumentParser(prog="python -m tools.tiny", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for scenes, checkpoints and the weights (about 3 GB)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="processor threads")
    parser.add_argument("--scenes", type=int, default=plan.scenes)
    parser.add_argument("--steps", type=int, default=plan.steps)
    parser.add_argument("--seed", type=int, default=plan.seed)
    said = parser.parse_args()
    torch.set_num_threads(said.threads)
    plan = train.Plan(scenes=said.scenes, steps=said.steps, seed=said.seed)
    scenes.write(said.work / "scenes", plan.scenes, plan.seed, said.threads)
    train.prepare(said.work, plan)
    train.train(said.work, plan, said.device)


if __name__ == "__main__":
    main()
