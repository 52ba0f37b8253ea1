"""What every posture stops: from tries to one outcome per mesh, posture and attempt. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwise.archive.outcome import ProtectionTry
from meshwise.findings.protection import DECIDED, AttemptOutcome, is_surprising
from meshwise.mesh.protection.attempt import Attempt, TryEvidence
from meshwise.mesh.protection.catalogue import BY_KEY
from meshwise.stats.interval import clopper_pearson
from meshwise.study.model import MeshName
from meshwise.study.security import POSTURES


@dataclass(frozen=True)
class Protected:
    """One attempt against one posture of one mesh."""

    mesh: MeshName
    posture: str
    attempt: str
    outcome: AttemptOutcome
    """Of all tries; undecided when they differ."""
    n: int
    """Tries that were decided."""
    stopped: int
    """Of these."""
    low: float | None
    """Interval of the share stopped (Clopper and Pearson); None without a decided try."""
    high: float | None
    expected: AttemptOutcome | None
    """By the mesh's documentation; None: an attempt that this meshwise does not know."""
    evidence: TryEvidence
    """Of the first try that shows the outcome."""
    harmed: int = 0
    """Tries after which a process had ended or fallen silent."""
    tries: int = 0
    """That were made: of those that mean something here."""

    @property
    def surprising(self) -> bool:
        return is_surprising(self.outcome, self.expected)

    @property
    def attempted(self) -> Attempt | None:
        return BY_KEY.get(self.attempt)


@dataclass
class _Group:
    outcomes: list[AttemptOutcome] = field(default_factory=list)
    evidence: list[TryEvidence] = field(default_factory=list)


def protected(tries: Iterable[ProtectionTry], confidence: float = 0.95) -> tuple[Protected, ...]:
    """In the order in which mesh, posture and attempt first come."""
    groups: dict[tuple[str, str, str], _Group] = {}
    for one in tries:
        group = groups.setdefault((one.mesh, one.posture, one.attempt), _Group())
        group.outcomes.append(AttemptOutcome(one.outcome))
        group.evidence.append(evidence_of(json.loads(one.evidence)))
    return tuple(_protected(MeshName(key[0]), *key[1:], group, confidence) for key, group in groups.items())


def evidence_of(facts: Mapping[str, Any]) -> TryEvidence:
    return TryEvidence(
        str(facts.get("status", "")),
        str(facts.get("reason", "")),
        dict(facts.get("counted", {})),
        str(facts.get("wire", "")),
        str(facts.get("harm", "")),
    )


def _protected(mesh: MeshName, posture: str, key: str, group: _Group, confidence: float) -> Protected:
    decided = [outcome for outcome in group.outcomes if outcome in DECIDED]
    stopped = decided.count(AttemptOutcome.STOPPED)
    outcome = group.outcomes[0] if len(set(group.outcomes)) == 1 else AttemptOutcome.UNDECIDED
    interval = clopper_pearson(stopped, len(decided), confidence) if decided else None
    attempt = BY_KEY.get(key)
    shows = outcome if outcome in group.outcomes else group.outcomes[0]
    return Protected(
        mesh,
        posture,
        key,
        outcome,
        len(decided),
        stopped,
        interval.low if interval else None,
        interval.high if interval else None,
        attempt.expected(mesh, POSTURES[posture]) if attempt else None,
        group.evidence[group.outcomes.index(shows)],
        sum(bool(evidence.harm) for evidence in group.evidence),
        sum(each is not AttemptOutcome.NOT_APPLICABLE for each in group.outcomes),
    )
