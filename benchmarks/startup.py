"""How long the command line takes to start, against the least it could take, side by side in one run.

    python benchmarks/startup.py [--runs N]

Each pair runs in turn, so that what else the machine does falls on both; the medians and their ratio are printed.
Exit code 1 when `amqpflow --help` takes more than 1.5 times `python -c 'import click'`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOPOLOGY = ROOT / "examples" / "orders" / "topology.yaml"
HELP_LIMIT = 1.5

PYTHON = [sys.executable, "-c"]
COMMAND = str(Path(sys.executable).with_name("amqpflow"))

PAIRS = {
    "amqpflow --help": ([COMMAND, "--help"], "python -c 'import click'", [*PYTHON, "import click"]),
    "amqpflow validate": ([COMMAND, "validate", str(TOPOLOGY)], "python -c pass", [*PYTHON, "pass"]),
}


def milliseconds(command: list[str]) -> float:
    """One run from start to exit."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


def compare(ours: list[str], theirs: list[str], runs: int) -> tuple[float, float]:
    """Medians in milliseconds of both commands, run in turn after one run each that fills the caches."""
    milliseconds(ours)
    milliseconds(theirs)
    pairs = [(milliseconds(ours), milliseconds(theirs)) for _ in range(runs)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21, help="runs of each command (default: 21)")
    runs = parser.parse_args().runs
    slow = False
    for name, (ours, baseline, theirs) in PAIRS.items():
        mine, least = compare(ours, theirs, runs)
        ratio = mine / least
        print(f"{name:18} {mine:7.1f} ms   {baseline:25} {least:7.1f} ms   ratio {ratio:.2f}   ({runs} runs)")
        slow |= name == "amqpflow --help" and ratio > HELP_LIMIT
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
