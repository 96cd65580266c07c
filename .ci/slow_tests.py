"""Print the slow tests of one part of a fixed rotation, one a line: test number i belongs to part ``i % parts``.

    python .ci/slow_tests.py --part 200 --parts 3
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def slow_tests() -> list[str]:
    """Node ids of all tests marked slow, in the order of collection. Exits with pytest's message if collection fails."""
    command = [sys.executable, "-m", "pytest", "-m", "slow", "--collect-only", "-p", "no:xdist", "-o", "addopts=-q"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    tests = [line for line in found.stdout.splitlines() if "::" in line]
    if found.returncode or not tests:
        sys.exit(found.stdout + found.stderr)
    return tests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # base 10 by hand: the day of the year is written 008, which is fine for int() and not for a shell
    parser.add_argument("--part", type=int, required=True, help="any number, such as the day of the year")
    parser.add_argument("--parts", type=int, required=True, help="how many parts the rotation has")
    args = parser.parse_args()
    if args.parts < 1:
        parser.error(f"--parts must be at least 1, got {args.parts}")
    print("\n".join(test for i, test in enumerate(slow_tests()) if i % args.parts == args.part % args.parts))


if __name__ == "__main__":
    main()
