"""What the archive holds beside the findings: proofs, failures, topologies, the study's text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.archive.outcome import Check, TrialStatus
from meshwise.archive.read import ArchiveReader
from meshwise.report.words import rung_order
from meshwise.study.model import Protocol, Topology

PROOF_FACTS = (
    ("tls_version", "TLS"),
    ("tls_group", "group"),
    ("tls_cipher", "cipher"),
    ("server_key", "key"),
    ("chain_depth", "intermediates"),
    ("client_identity", "client identity"),
    ("server_identity", "server identity"),
    ("workers", "workers"),
)


@dataclass(frozen=True)
class ProofSummary:
    """The proofs of all trials of one mesh, posture and protocol."""

    mesh: str
    posture: str
    protocol: str
    trials: int
    passed: int
    checks: tuple[Check, ...]
    """One of each name; a failed one before one that passed."""
    facts: Mapping[str, str]
    """All values seen, joined."""


@dataclass(frozen=True)
class FailedTrial:
    """A trial that failed or whose posture did not hold."""

    trial_id: str
    cell: str
    status: str
    failure: str
    log_tail: str


@dataclass(frozen=True)
class Record:
    """Empty where there is no archive to read."""

    proofs: tuple[ProofSummary, ...] = ()
    troubles: tuple[FailedTrial, ...] = ()
    trials: int = 0
    study_text: str = ""
    topologies: tuple[Topology, ...] = ()


def read_record(reader: ArchiveReader) -> Record:
    """Raises MW608, MW609 for files that cannot be read."""
    rows = reader.trials().to_dicts()
    return Record(
        proofs=_proofs(rows),
        troubles=tuple(_trouble(row) for row in rows if row["status"] != TrialStatus.OK),
        trials=len(rows),
        study_text=reader.study_text,
        topologies=tuple(dict.fromkeys(trial.cell.topology for trial in reader.design)),
    )


def _proofs(rows: Sequence[Mapping[str, Any]]) -> tuple[ProofSummary, ...]:
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        proof = json.loads(row["proof"] or "{}")
        if proof.get("checks") or proof.get("facts"):
            groups.setdefault((row["mesh"], row["posture"], row["protocol"]), []).append(proof)
    ordered = sorted(groups.items(), key=lambda item: _place(*item[0]))
    return tuple(_summary(*place, proofs) for place, proofs in ordered)


def _place(mesh: str, posture: str, protocol: str) -> tuple[object, ...]:
    protocols = [str(known) for known in Protocol]
    return protocols.index(protocol), mesh != "none", mesh, rung_order(posture)


def _summary(mesh: str, posture: str, protocol: str, proofs: Sequence[Mapping[str, Any]]) -> ProofSummary:
    checks: dict[str, Check] = {}
    seen: dict[str, dict[str, None]] = {}
    for proof in proofs:
        for entry in proof.get("checks", ()):
            check = Check(
                str(entry["name"]), str(entry["expected"]), str(entry["observed"]), bool(entry["passed"])
            )
            if check.name not in checks or not check.passed:
                checks[check.name] = check
        for name, value in proof.get("facts", {}).items():
            seen.setdefault(str(name), {})[str(value)] = None
    return ProofSummary(
        mesh,
        posture,
        protocol,
        len(proofs),
        sum(bool(proof.get("passed")) for proof in proofs),
        tuple(checks.values()),
        {name: _few(list(values)) for name, values in seen.items()},
    )


def _few(values: list[str]) -> str:
    return ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")


def _trouble(row: Mapping[str, Any]) -> FailedTrial:
    return FailedTrial(
        row["trial_id"], row["cell"], row["status"], row["failure"] or "", row["log_tail"] or ""
    )
