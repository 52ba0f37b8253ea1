"""Every benchmark, one after another, on a machine that does nothing else. `make bench` calls this.

    python benchmarks/run_all.py [NAME ...]

Prints each one's own words and, at the end, which figures were reached. Exit status 1 if one was not.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    wanted = sys.argv[1:] or sorted(path.stem for path in HERE.glob("[a-z]*.py") if path.stem != "run_all")
    verdicts = []
    for name in wanted:
        print(f"\n=== {name}", flush=True)
        begun = time.monotonic()
        done = subprocess.run([sys.executable, HERE / f"{name}.py"], check=False)
        verdicts.append((name, done.returncode, time.monotonic() - begun))
    print("\n=== all")
    for name, status, seconds in verdicts:
        word = {0: "reached", 1: "NOT reached"}.get(status, f"ended with status {status}")
        print(f"{name:24} {word} ({seconds:.0f} s)")
    return 1 if any(status for _, status, _ in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
