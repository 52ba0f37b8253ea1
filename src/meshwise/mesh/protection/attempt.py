"""An attempt as data: who tries what from where, what must come of it, and where it means anything.

How to read `Stops`: a posture has an mTLS mode and a kind of authorization, and each of them can be what
stops an attempt. The first posture of the ladder that should stop it follows (`Stops.first`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from meshwise.findings.protection import AttemptOutcome as AttemptOutcome
from meshwise.study.model import LADDER, Authorization, MeshName, MtlsMode, Posture, Protocol

if TYPE_CHECKING:
    from meshwise.mesh.protection.scene import Scene


@dataclass(frozen=True)
class TryEvidence:
    """What an outcome rests on. Holds no key, no certificate and no token."""

    status: str
    """What the attacker saw: a status, or how the connection ended."""
    reason: str = ""
    """In the proxy's own words where it has any; else why the attempt is not applicable or undecided."""
    counted: Mapping[str, int] = field(default_factory=dict)
    """What the proxy of the attacked service counted meanwhile."""
    wire: str = ""
    """What was found on the wire, in bytes."""
    harm: str = ""
    """What became of the proxy, if it ended or fell silent."""

    def __str__(self) -> str:
        """One line."""
        counted = ", ".join(f"{name} {count}" for name, count in self.counted.items())
        parts = (self.status, self.reason, f"counted: {counted}" if counted else "", self.wire, self.harm)
        return "; ".join(part for part in parts if part)

    @property
    def facts(self) -> dict[str, Any]:
        """What there is, for JSON."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Seen:
    """What a step found, before the counters are read."""

    outcome: AttemptOutcome
    status: str
    reason: str = ""
    wire: str = ""


class AttackStep(ABC):
    """How an attempt is carried out, as a frozen value."""

    @abstractmethod
    def carry_out(self, scene: Scene) -> Seen:
        """Try once. Nothing that a peer does raises; a silent administration may (MW406)."""


@dataclass(frozen=True)
class Stops:
    """Which postures stop an attempt, by the mesh's documentation."""

    modes: frozenset[MtlsMode] = frozenset()
    kinds: frozenset[Authorization] = frozenset()

    def __or__(self, other: Stops) -> Stops:
        return Stops(self.modes | other.modes, self.kinds | other.kinds)

    def by(self, posture: Posture) -> bool:
        return posture.mtls is not None and (
            posture.mtls in self.modes or posture.authorization in self.kinds
        )

    @property
    def first(self) -> Posture | None:
        """The first rung of the ladder that stops it; None: no posture does."""
        return next((posture for posture in LADDER if self.by(posture)), None)


NEVER = Stops()
ALWAYS = Stops(frozenset(MtlsMode))
"""With a sidecar, in every posture."""
ENCRYPTED = Stops(frozenset({MtlsMode.PERMISSIVE, MtlsMode.STRICT}))
STRICT = Stops(frozenset({MtlsMode.STRICT}))
BY_CALLER = Stops(kinds=frozenset({Authorization.NAMESPACE, Authorization.FINE}))
LEAST_PRIVILEGE = Stops(kinds=frozenset({Authorization.FINE}))
BY_REQUEST = Stops(kinds=frozenset({Authorization.FINE, Authorization.REQUEST}))


@dataclass(frozen=True)
class Documented:
    """What a mesh's documentation lets one expect."""

    stops: Stops
    source: str


@dataclass(frozen=True)
class Inapplicable:
    """Where an attempt means nothing, and why. `modes`: mTLS modes of the mesh; None stands for no mesh."""

    reason: str
    meshes: frozenset[MeshName] = frozenset(MeshName)
    modes: frozenset[MtlsMode | None] = frozenset({None, *MtlsMode})
    kinds: frozenset[Authorization] = frozenset(Authorization)

    def holds(self, mesh: MeshName, posture: Posture) -> bool:
        return mesh in self.meshes and posture.mtls in self.modes and posture.authorization in self.kinds


@dataclass(frozen=True)
class Attempt:
    """One way to get what a caller should not have."""

    key: str
    who: str
    where: str
    how: str
    must: str
    """What has to come of it where it is stopped."""
    step: AttackStep
    documented: Mapping[MeshName, Documented]
    """Of both meshes; without a mesh nothing stops anything."""
    limits: tuple[Inapplicable, ...] = ()
    protocol: Protocol = Protocol.HTTP1
    """What the services speak when it is tried."""
    tries: int | None = None
    """In each execution, at most; for what takes seconds."""

    @property
    def words(self) -> str:
        return f"{self.who}, {self.where}: {self.how}"

    def not_applicable(self, mesh: MeshName, posture: Posture) -> str | None:
        """Why it means nothing here, or None."""
        return next((limit.reason for limit in self.limits if limit.holds(mesh, posture)), None)

    def expected(self, mesh: MeshName, posture: Posture) -> AttemptOutcome:
        """By the mesh's documentation."""
        if self.not_applicable(mesh, posture):
            return AttemptOutcome.NOT_APPLICABLE
        known = self.documented.get(mesh)
        return AttemptOutcome.STOPPED if known and known.stops.by(posture) else AttemptOutcome.LET_THROUGH


def both(istio: Documented, linkerd: Documented) -> Mapping[MeshName, Documented]:
    return {MeshName.ISTIO: istio, MeshName.LINKERD: linkerd}


WITHOUT_MESH = frozenset({MeshName.NONE})
NO_PROXY = Inapplicable("there is no proxy", WITHOUT_MESH)
NO_TLS_WITHOUT_MESH = Inapplicable("the service speaks no TLS", WITHOUT_MESH)
NO_TLS_IN_ISTIO_PLAINTEXT = Inapplicable(
    "with mTLS disabled the port speaks no TLS",
    frozenset({MeshName.ISTIO}),
    frozenset({MtlsMode.DISABLE}),
)
