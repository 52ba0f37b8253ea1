"""Istio as a `MeshModel`: what a posture is in Istio.

    cell -> resources (YAML) -> view -> translate -> configuration of each sidecar

`posture` writes the resources, `translate` is istiod, `proof` asks the proxies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from meshwise.mesh.changes import PolicyPush
from meshwise.mesh.delivery.seam import Sources
from meshwise.mesh.expectations import Expectation, Who
from meshwise.mesh.identity import form_of
from meshwise.mesh.istio import caller, posture, proof, traits
from meshwise.mesh.istio.kinds import IstioResources
from meshwise.mesh.istio.pushed import policies
from meshwise.mesh.istio.resources import parse
from meshwise.mesh.istio.translate import fingerprint
from meshwise.mesh.istio.view import CURVES, Options, View, view_of
from meshwise.mesh.probe import Entrance
from meshwise.mesh.protection import guard_rule
from meshwise.mesh.reach import Reach
from meshwise.mesh.request import Headers, request_of
from meshwise.mesh.seam import Delivered, Placement, Proof
from meshwise.mesh.tokens import tokens
from meshwise.study.model import Cell, MeshName, Resumption, SanMatch, TlsVersion

VERSIONS: Mapping[TlsVersion, tuple[str, str]] = {
    TlsVersion.DEFAULT: Options().tls_versions,
    TlsVersion.TLS_1_2: ("TLSv1_2", "TLSv1_2"),
    TlsVersion.TLS_1_3: ("TLSv1_3", "TLSv1_3"),
}


@dataclass(frozen=True)
class IstioModel:
    """See `meshwise.mesh.seam.MeshModel`."""

    options: Options = field(default_factory=Options)
    guarded: bool = False
    """Whether a rule that forbids is laid over every posture (`mesh.protection.guard_rule`)."""
    pushed: PolicyPush | None = None
    """Policies beside those of every posture."""

    @property
    def name(self) -> MeshName:
        return MeshName.ISTIO

    def not_applicable(self, cell: Cell) -> str | None:
        return posture.not_applicable(cell)

    def resources(self, cell: Cell, trust_domain: str) -> str:
        made = posture.resources(cell, tokens().jwks, trust_domain)
        return guard_rule.over(self.name, cell, made) if self.guarded else made

    def request(self, cell: Cell) -> Headers:
        return request_of(cell)

    def traits(self, build: Mapping[str, str]) -> Mapping[str, str]:
        return traits.traits(self.options, build["tls_library"])

    def expectations(self, cell: Cell, callee: str) -> Sequence[Expectation]:
        return proof.rows(cell, callee)

    def entrance(self, placement: Placement, cell: Cell, who: Who = Who.TWIN) -> Entrance:
        return caller.entrance(placement, cell, who)

    def judge(self, placement: Placement, cell: Cell, reach: Reach, delivered: Delivered) -> Proof:
        begun_ns = time.monotonic_ns()
        evidence = proof.gather(placement, cell, reach)
        version = self.fingerprint(cell, placement.trust_domain)
        checks, facts = proof.judge(placement, cell, evidence, version, delivered.workers)
        return Proof(checks, facts, time.monotonic_ns() - begun_ns)

    def fingerprint(self, cell: Cell, trust_domain: str) -> str:
        """What every version of the cell's configuration begins with."""
        beside = () if self.pushed is None else (self.pushed,)
        return fingerprint(
            self.resources(cell, trust_domain), form_of(cell).name, self._options_for(cell), *beside
        )

    def view(self, placement: Placement, cell: Cell, generation: str, sources: Sources) -> View:
        """What istiod would see, for `translate`."""
        made = _parsed(self.resources(cell, placement.trust_domain))
        if self.pushed is not None:
            beside = policies(cell, self.pushed, placement.trust_domain)
            made = replace(made, authorization_policies=(*made.authorization_policies, *beside))
        return view_of(placement, made, generation, sources, self._options_for(cell))

    def _options_for(self, cell: Cell) -> Options:
        """Those of the mesh, with what the cell asks of a handshake, and traced if the cell is."""
        return replace(
            self.options,
            curves=CURVES[cell.tls_group] or self.options.curves,
            tls_versions=VERSIONS[cell.tls_version],
            san_prefix=cell.san_match is SanMatch.PREFIX,
            resumption=cell.resumption is not Resumption.OFF,
            traced=cell.traced_share > 0,
        )


@lru_cache(maxsize=64)
def _parsed(text: str) -> IstioResources:
    return parse(text)
