"""What the study benchmarks share: run a study file by the command, and read its findings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
MESHWISE = Path(sys.executable).with_name("meshwise")


@dataclass(frozen=True)
class Ran:
    """A finished study: its findings, and the share of wall time inside warm-up or measurement."""

    findings: list[dict[str, Any]]
    trials: int
    wall: str
    measured_share: float


def run_study(study: Path, directory: Path) -> Ran:
    """Run and analyse; the run's own words are passed through. Ends the benchmark if the study fails."""
    done = subprocess.run(
        [MESHWISE, "run", study, "--out", directory],
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    closing = re.search(r"(\d+) trials in (.+?) \((\d+)% of it", done.stderr)
    if done.returncode or not closing:
        sys.exit(f"the study did not finish:\n{done.stderr[-3000:]}")
    subprocess.run([MESHWISE, "analyze", directory, "--quiet"], cwd=CHECKOUT, check=True)
    document = json.loads((directory / "findings.json").read_text())
    return Ran(document["findings"], int(closing[1]), closing[2], int(closing[3]) / 100)
