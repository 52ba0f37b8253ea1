"""All attempts of `meshwise protect`, twice for each mesh: under three minutes, and both runs see the same.

    python benchmarks/protection_agreement.py [--meshes istio linkerd]

The two runs have nothing in common but the study: other processes, keys and certificates. An outcome that
differs must be flagged by one of the two runs as *undecided*. Exit status 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = """\
name: protection
environments: [{mesh}]
factors: {{posture: ladder, rate: 20/s}}
blocks: 2
"""
LIMIT_S = 180.0
MAIN = ("-c", "from meshwise.cli.entry import main; main()")

Outcomes = dict[tuple[str, str], str]
"""(posture, attempt) -> outcome"""


def one_run(study: Path) -> tuple[float, Outcomes]:
    """Seconds, and what came of every attempt. Raises when `protect` itself fails."""
    begun = time.monotonic()
    command = [sys.executable, *MAIN, "protect", str(study), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    took_s = time.monotonic() - begun
    attempts = json.loads(done.stdout)["attempts"]
    return took_s, {(each["posture"], each["attempt"]): each["outcome"] for each in attempts}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--meshes", nargs="+", default=["istio", "linkerd"])
    missed = False
    for mesh in parser.parse_args().meshes:
        with tempfile.TemporaryDirectory() as scratch:
            study = Path(scratch) / "study.yaml"
            study.write_text(STUDY.format(mesh=mesh))
            (first_s, first), (second_s, second) = one_run(study), one_run(study)
        differing = {
            key: (first.get(key), second.get(key))
            for key in first.keys() | second.keys()
            if first.get(key) != second.get(key)
        }
        silent = {key: both for key, both in differing.items() if "undecided" not in both}
        undecided = sum(outcome == "undecided" for outcome in (*first.values(), *second.values()))
        slowest_s = max(first_s, second_s)
        reached = slowest_s < LIMIT_S and not silent
        missed = missed or not reached
        print(
            f"{mesh}: {len({attempt for _, attempt in first})} attempts, {len(first)} outcomes; "
            f"{first_s:.0f} s and {second_s:.0f} s (under {LIMIT_S:.0f}); "
            f"{len(differing)} differ between the runs, {len(silent)} of them without a flag; "
            f"{undecided} undecided: {'reached' if reached else 'NOT REACHED'}"
        )
        for (posture, attempt), both in sorted(silent.items()):
            print(f"  {posture} {attempt}: {both[0]}, then {both[1]}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
