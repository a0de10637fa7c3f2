"""How long it takes to show settings, beside the shortest answer there is and beside the import of torch.

    python benchmarks/settings.py [--repeats 5]

Commands run as a person starts them, each in its own process: medians of their wall and processor times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.registry import WORKER, timed  # noqa: E402

COMMANDS = {
    "--help": ["--help"],
    "train --print-config": ["train", "--print-config"],
    "config schema": ["config", "schema"],
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as nothing:
        programs = {name: [str(WORKER), *words] for name, words in COMMANDS.items()}
        programs["train --print-config"] += ["--datasets", nothing]
        programs["import torch"] = ["-c", "import torch"]
        print("| command | wall, s | processor, s |\n|---|---|---|")
        for name, words in programs.items():
            measured = [timed(words) for _ in range(repeats)]
            wall, processor = (statistics.median(column) for column in zip(*measured, strict=True))
            print(f"| `{name}` | {wall:.2f} | {processor:.2f} |")


if __name__ == "__main__":
    main()
