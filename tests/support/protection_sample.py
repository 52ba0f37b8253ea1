"""Tries as `meshwise protect` makes them, as the meshes document them but for a few surprises."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meshwise.analysis.protection_findings import with_protection
from meshwise.archive.outcome import ProtectionTry
from meshwise.findings.document import read_finding, to_json
from meshwise.findings.finding import Findings
from meshwise.mesh.protection.attempt import AttemptOutcome
from meshwise.mesh.protection.catalogue import ATTEMPTS
from meshwise.study.model import LADDER, NO_MESH, MeshName

STOPPED, THROUGH = AttemptOutcome.STOPPED, AttemptOutcome.LET_THROUGH
Place = tuple[str, str, str]
"""Mesh, posture, attempt."""

SURPRISES: Mapping[Place, Sequence[AttemptOutcome]] = {
    ("istio", "strict+fine", "token-wrong-audience"): (THROUGH,) * 10,
    ("linkerd", "strict+fine", "wrong-account"): (STOPPED,) * 7 + (THROUGH,) * 3,
    ("istio", "permissive", "tls-1.0"): (AttemptOutcome.UNDECIDED,) * 10,
}


def tries(
    meshes: Sequence[str] = ("istio", "linkerd"),
    attempts: Sequence[str] | None = None,
    outcomes: Mapping[Place, Sequence[AttemptOutcome]] = SURPRISES,
) -> Iterator[ProtectionTry]:
    """Ten tries of each attempt in the catalogue, or of those named, in every posture of the ladder and
    without a mesh. `outcomes`: what is not as documented."""
    places = [(MeshName.NONE, NO_MESH), *((MeshName(mesh), rung) for mesh in meshes for rung in LADDER)]
    for mesh, posture in places:
        for attempt in ATTEMPTS:
            if attempts is not None and attempt.key not in attempts:
                continue
            expected = attempt.expected(mesh, posture)
            one = (expected,) if expected is AttemptOutcome.NOT_APPLICABLE else (expected,) * 10
            found = outcomes.get((str(mesh), posture.name, attempt.key), one)
            for number, outcome in enumerate(found):
                yield ProtectionTry(
                    mesh=str(mesh), posture=posture.name, protocol=str(attempt.protocol), attempt=attempt.key,
                    execution=number // 5, number=number % 5, outcome=str(outcome),
                    evidence=json.dumps(_evidence(outcome)), duration_ns=4_000_000,
                )  # fmt: skip


def _evidence(outcome: AttemptOutcome) -> dict[str, Any]:
    if outcome is AttemptOutcome.NOT_APPLICABLE:
        return {"status": "not tried", "reason": "it means nothing here"}
    if outcome is STOPPED:
        return {"status": "403", "reason": "RBAC: access denied", "counted": {"rbac.denied": 1}}
    return {"status": "200" if outcome is THROUGH else "timed out"}


def protected(document: dict[str, Any], made: Sequence[ProtectionTry] | None = None) -> dict[str, Any]:
    """A findings document with what was tried."""
    found = Findings(
        document["study"], document["environment"], tuple(map(read_finding, document["findings"]))
    )
    return to_json(with_protection(found, list(tries()) if made is None else made, 0.95))
