"""`python -m tools.tiny WORK`: draw the scenes, train, and write the model; steps that are done are skipped."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tools.tiny import scenes, train


def main() -> None:
    """Parse the arguments and do the missing steps."""
    plan = train.Plan()
    parser = argparse.ArgumentParser(prog="python -m tools.tiny", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for scenes, checkpoints and the weights (about 3 GB)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="processor threads")
    parser.add_argument("--scenes", type=int, default=plan.scenes)
    parser.add_argument("--steps", type=int, default=plan.steps)
    parser.add_argument("--seed", type=int, default=plan.seed)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan = train.Plan(scenes=args.scenes, steps=args.steps, seed=args.seed)
    scenes.write(args.work / "scenes", plan.scenes, plan.seed, args.threads)
    train.prepare(args.work, plan)
    train.train(args.work, plan, args.device)


if __name__ == "__main__":
    main()
