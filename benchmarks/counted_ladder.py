"""Counted instructions per request, by `meshwise count` on real sidecars: what a user gets, and how surely.

    python benchmarks/counted_ladder.py [ladder|identical|planted ...] [--mesh istio|linkerd]

`ladder`: the ladder on http1. Istio's is counted in four minutes including starts, Linkerd's in three; the
95 % half-width of every step is at most 0.3 % of its rung; equal windows of a trial agree within 0.2 % (every
second one against the others, 95 of 100).
`identical`: the ladder with two cells of each rung whose answers differ by one byte (1000 and 1001, within
one block of the cipher): of 40 comparisons of what is the same at most 5 % are claimed. Three runs.
`planted`: one authorization rule more, before the one that matches: found in every one of five runs, as more.

Counts hardly mind what else a machine does, the minutes do: take those from a quiet one. Without a name, all
three of both meshes (some forty minutes); Linkerd needs MESHWISE_LINKERD_PROXY. Exit status 1 if one is
missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _study import CHECKOUT, MESHWISE
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import counted_of
from meshwise.findings.metric import MetricKey
from meshwise.stats.exact import halves

INSTRUCTIONS, PER_RULE, PER_KIB = "instructions_per_request", "instructions_per_rule", "instructions_per_kib"
LIMIT_S = {"istio": 240.0, "linkerd": 180.0}
HALF_WIDTH, WINDOWS = 0.003, 0.002
FALSE_CLAIMS, COMPARISONS = 0.05, 40
IDENTICAL_RUNS, PLANTED_RUNS = 3, 5
LADDER = "factors: {posture: ladder, connections: 1}\n"
IDENTICAL = "factors: {posture: ladder, connections: 1, response: [1000B, 1001B]}\n"
PLANTED = "factors: {posture: strict+fine, policies: [0, 1], connections: 1}\n"


@dataclass(frozen=True)
class Counted:
    """A study that was counted."""

    took_s: float
    findings: Sequence[Mapping[str, Any]]
    windows: Mapping[str, float]
    """How far equal windows lie apart, as a share: all sidecars together, and each of them."""

    def of(self, kind: str, metric: str) -> list[Mapping[str, Any]]:
        return [each for each in self.findings if each["kind"] == kind and each["metric"] == metric]


def count(mesh: str, factors: str, key: str = "{}", seed: int = 1) -> Counted:
    with tempfile.TemporaryDirectory(prefix="counted-") as scratch:
        study, out = Path(scratch) / "study.yaml", Path(scratch) / "out"
        study.write_text(f"name: counted\nseed: {seed}\nenvironments: {mesh}\n{factors}count: {key}\n")
        begun = time.monotonic()
        done = subprocess.run(
            [MESHWISE, "count", study, "--out", out],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        took_s = time.monotonic() - begun
        if done.returncode:
            sys.exit(f"the study did not finish:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
        findings = json.loads((out / "findings.json").read_text())["findings"]
        return Counted(took_s, findings, dict(_windows(ArchiveReader.open(out))))


def _windows(reader: ArchiveReader) -> Iterator[tuple[str, float]]:
    counted = counted_of(reader)
    assert counted is not None, "the command says so itself"
    for part in ("", "client", "node-1"):
        key = MetricKey(INSTRUCTIONS, part)
        apart = [halves(each.windows[key]) for each in counted.trials if key in each.windows]
        yield part or "all", float(np.quantile(np.abs([each for each in apart if each is not None]), 0.95))


def ladder(mesh: str) -> list[bool]:
    found = count(mesh, LADDER)
    level = {each["scope"]["posture"]: each for each in found.of("level", INSTRUCTIONS) if not _part(each)}
    print(f"ladder of {mesh} in {found.took_s:.0f} s (at most {LIMIT_S[mesh]:.0f})")
    widest = 0.0
    for each in found.of("increment", INSTRUCTIONS):
        if _part(each):
            continue
        rung = level[each["scope"]["to"]]["estimate"]
        half = (each["high"] - each["low"]) / 2
        widest = max(widest, half / rung)
        step = f"{each['scope']['from']} → {each['scope']['to']}"
        told = f"{each['estimate']:+9.0f} ±{half:6.0f} of {rung:8.0f} ({half / rung:.2%})"
        print(f"  {step:32} {told}  {each['verdict']}")
    apart = ", ".join(f"{name} {share:.2%}" for name, share in found.windows.items())
    print(f"  widest half-width {widest:.2%} (at most {HALF_WIDTH:.1%})")
    print(f"  equal windows: {apart} (at most {WINDOWS:.1%})")
    return [found.took_s <= LIMIT_S[mesh], widest <= HALF_WIDTH, found.windows["all"] <= WINDOWS]


def identical(mesh: str) -> list[bool]:
    """A slope along one byte is a claim that one byte changed something."""
    verdicts: list[str] = []
    for run in range(IDENTICAL_RUNS):
        found = count(mesh, IDENTICAL, "{executions: 4, handshakes: 0}", seed=run + 1)
        verdicts += [each["verdict"] for each in found.of("difference", PER_KIB) if each["n"]]
    claimed = verdicts.count("distinguishable")
    allowed = max(1, int(FALSE_CLAIMS * len(verdicts)))
    print(f"identical cells of {mesh}: {claimed} of {len(verdicts)} comparisons claimed (at most {allowed})")
    return [len(verdicts) >= COMPARISONS, claimed <= allowed]


def planted(mesh: str) -> list[bool]:
    costs = []
    for run in range(PLANTED_RUNS):
        found = count(mesh, PLANTED, "{executions: 4, handshakes: 0}", seed=run + 1)
        [slope] = [each for each in found.of("difference", PER_RULE) if not _part(each)]
        sure = slope["verdict"] == "distinguishable" and slope["estimate"] > 0
        costs.append((slope["estimate"], sure))
    told = ", ".join(f"{cost:+.0f}{'' if sure else ' (not found)'}" for cost, sure in costs)
    print(f"one rule more in {mesh}: {told} instructions")
    return [all(sure for _, sure in costs)]


def _part(finding: Mapping[str, Any]) -> str:
    return str(finding["scope"].get("workload", ""))


FIGURES = {"ladder": ladder, "identical": identical, "planted": planted}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], default=[])
    parser.add_argument("--mesh", choices=tuple(LIMIT_S), action="append")
    arguments = parser.parse_args()
    reached = [
        FIGURES[name](mesh) for mesh in arguments.mesh or LIMIT_S for name in arguments.figures or FIGURES
    ]
    return 0 if all(map(all, reached)) else 1


if __name__ == "__main__":
    sys.exit(main())
