"""Wall seconds until the command line answers: help must come in under half a second."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7
LIMIT_S = 0.5
CASES = {
    "python alone": ["-c", "pass"],
    "nightsift --help": ["-c", "from nightsift.cli import main; main()", "--help"],
    "nightsift night --help": ["-c", "from nightsift.cli import main; main()", "night", "--help"],
    "nightsift unit list": ["-c", "from nightsift.cli import main; main()", "unit", "list"],
}


def seconds(arguments: list[str]) -> float:
    """Median wall time of a command, its first run apart."""
    taken = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    measured = {name: seconds(arguments) for name, arguments in CASES.items()}
    for name, value in measured.items():
        print(f"{name:<24} {value:6.3f} s")
    slow = [name for name, value in measured.items() if name.endswith("--help") and value > LIMIT_S]
    sys.exit(f"over {LIMIT_S} s: {', '.join(slow)}" if slow else 0)
