"""Release a network that was trained elsewhere.

    python benchmarks/realbogus/release.py --network FOLDER --sets A --test B --out NAME

What `learning_curves` trains on a machine without TensorFlow becomes a model with its export, golden scores, threshold
and card, as `nightsift train` writes it. The sets must be those that it learnt from, dealt out by the same seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.realbogus import base_models, trained_networks
from models.training.dataset import leave_out, with_test_set
from models.training.release import release


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", type=Path, required=True, help="folder of benchmarks/realbogus/learning_curves.py")
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="that it learnt from")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="of other units")
    parser.add_argument("--deal", type=int, default=1, help="as benchmarks/realbogus/learning_curves.py had it")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    facts = trained_networks.training_of(arguments.network)
    found = with_test_set(base_models.read_sets(arguments.sets), base_models.read_sets(arguments.test), arguments.deal)
    found = leave_out(found, facts["left_out"])
    part, unit = (np.asarray(found.table[name]).astype(str) for name in ("split", "unit"))
    learnt = int((part == "train").sum())
    known = sorted(set(unit[np.isin(part, ("train", "validation"))].tolist()))
    if learnt != facts["examples"] or known != facts["units_known"]:
        raise SystemExit(
            f"{arguments.network} learnt from {facts['examples']} examples of {len(facts['units_known'])} units, these "
            f"sets give {learnt} of {len(known)}: name the same --sets and --deal, and a network of all units"
        )
    made = {"by": "benchmarks/realbogus/learning_curves.py, benchmarks/realbogus/release.py", "seed": facts["seed"],
            "from": ", ".join(map(str, arguments.sets)), "tested on": ", ".join(map(str, arguments.test)),
            "not learnt from": ", ".join(facts["left_out"]) or "-"}  # fmt: skip
    card = release(arguments.out, trained_networks.as_trained(arguments.network), found, made=made).card
    print(f"model {card['model_id']} written to {arguments.out}, threshold {card['threshold']}")


if __name__ == "__main__":
    main()
