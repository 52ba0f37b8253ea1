"""A posture *is* a set of Istio resources: cell -> YAML, the only input of the translation.

Which resources make which rung follows Istio's own guides: mesh-wide PeerAuthentication for the mTLS
mode, one of a namespace or of a workload where those demand another; an AuthorizationPolicy per called
workload; RequestAuthentication where a claim is asked for.

Rules of this file:
- What a workload demands stands above the posture (`study.demands`). A demand is of the called side: a mode
  of mTLS per caller does not exist in Istio; who may call is said by the callee's AuthorizationPolicy.
- Clients follow by auto mTLS. istiod leaves it off for services of a namespace, or a mesh, whose mode is
  DISABLE, whatever their workloads say (BestEffortInferServiceMTLSMode in pilot/pkg/model/push_context.go),
  so a workload that wants mTLS there needs a DestinationRule with ISTIO_MUTUAL, as it would on a cluster.
- Opaque TCP has no requests to judge, and Istio lets an ALLOW rule that asks for one allow nothing there. So
  least privilege (`fine`) of a TCP port is what L4 can tell: the caller's identity and the port.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from meshwise.mesh.applicable import contradiction
from meshwise.mesh.istio.kinds import ROOT_NAMESPACE
from meshwise.mesh.istio.view import CURVES, ISTIO_HANDSHAKE_CURVES
from meshwise.mesh.request import (
    ABSENT_HEADER,
    TENANT,
    TENANT_HEADER,
    Allowance,
    allowances,
    no_caller,
    of_no_caller,
)
from meshwise.mesh.tokens import CLAIM, ISSUER, ROLE
from meshwise.mesh.writing import written
from meshwise.study.demands import effective_posture, modes
from meshwise.study.model import (
    Authorization,
    Cell,
    Http1Transport,
    KeyType,
    Layer,
    MtlsMode,
    Posture,
    Protocol,
    RuleKind,
    RulePlace,
    TlsGroup,
    TlsVersion,
    Workload,
)

Document = dict[str, Any]

_TOKEN_RULES = (Authorization.FINE, Authorization.REQUEST)


def not_applicable(cell: Cell) -> str | None:
    """Why Istio cannot express the cell, or None."""
    return (
        contradiction(cell, "Istio")
        or _no_token(cell)
        or _no_header(cell)
        or _ambiguous_port(cell)
        or _no_handshake(cell)
    )


def _no_handshake(cell: Cell) -> str | None:
    """What TLS 1.2 has not: groups with ML-KEM; and certificates of a curve that is not among the groups (RFC
    8422 section 5.1), where Istio's are X25519 and P-256."""
    if cell.tls_version is not TlsVersion.TLS_1_2:
        return None
    if cell.tls_group is TlsGroup.X25519MLKEM768:
        return "groups with ML-KEM are of TLS 1.3"
    groups = CURVES[cell.tls_group] or ISTIO_HANDSHAKE_CURVES
    curve = {KeyType.ECDSA_P256: "P-256", KeyType.ECDSA_P384: "P-384"}.get(cell.key_type)
    if curve and curve not in groups:
        return f"in TLS 1.2 the curve of a key has to be among the groups, and {curve} is not"
    return None


def _no_token(cell: Cell) -> str | None:
    if not cell.policy_count or cell.rule_kind is not RuleKind.CLAIM:
        return None
    kinds = {effective_posture(cell, workload).authorization for workload in cell.topology.workloads[1:]}
    if kinds <= set(_TOKEN_RULES):
        return None
    kind = cell.posture.authorization
    return f"a rule by claim needs tokens to be read, and authorization `{kind}` reads none"


def _no_header(cell: Cell) -> str | None:
    if cell.policy_count and cell.rule_place is RulePlace.HIT and cell.protocol.layer is Layer.L4:
        return "opaque TCP has no header, which a rule asks for that is met but for one"
    return None


def _ambiguous_port(cell: Cell) -> str | None:
    """A client's listener of an HTTP port serves all services of that port."""
    declared: dict[int, Protocol] = {}
    for workload in cell.topology.workloads:
        for protocol, port in workload.ports:
            known = declared.setdefault(port, protocol)
            if known is not protocol and Layer.L7 in (known.layer, protocol.layer):
                return f"port {port} is {known} at one service and {protocol} at `{workload.name}`"
    return None


@lru_cache(maxsize=64)
def resources(cell: Cell, jwks: str, trust_domain: str = "cluster.local") -> str:
    """Multi-document YAML, as one would apply it; `jwks` is the public key set of the token issuer."""
    return written(_documents(cell, jwks, trust_domain))


def _documents(cell: Cell, jwks: str, trust_domain: str) -> Iterable[Document]:
    assert cell.posture.mtls is not None, "not_applicable has been asked before"
    topology = cell.topology
    called = {
        workload: effective_posture(cell, workload)
        for workload in topology.workloads
        if topology.callers(workload.name)
    }
    yield from _modes(cell)
    for workload, posture in called.items():
        yield from _destination(cell, workload, posture)
    yield from _tokens(cell, called, jwks)
    for workload, posture in called.items():
        if posture.authorization is Authorization.NONE:
            continue
        here = _Rules(cell, workload, posture, trust_domain)
        if cell.policy_count:
            make = here.met_in_part if cell.rule_place is RulePlace.HIT else here.never
            others = [make(number) for number in range(cell.policy_count)]
            prefix, action = _PLACED[cell.rule_place]
            yield _policy(f"{prefix}-{workload.name}", workload, others, action)
        yield _policy(
            f"callers-of-{workload.name}", workload, [here.rule(each) for each in here.allowances()]
        )


# --- mutual TLS --------------------------------------------------------------------------------------


def _modes(cell: Cell) -> Iterable[Document]:
    wanted = modes(cell)
    yield _document("PeerAuthentication", "default", ROOT_NAMESPACE, {"mtls": {"mode": wanted.mesh.name}})
    for namespace, mode in wanted.namespaces.items():
        yield _document("PeerAuthentication", "default", namespace, {"mtls": {"mode": mode.name}})
    for name, mode in wanted.workloads.items():
        spec = {**_selector(name), "mtls": {"mode": mode.name}}
        yield _document("PeerAuthentication", name, cell.topology[name].namespace, spec)


def _destination(cell: Cell, workload: Workload, posture: Posture) -> Iterable[Document]:
    """What clients of this workload do otherwise than by default: HTTP/1.1 over HTTP/2 (Istio's own default
    is not to, MeshConfig.h2UpgradePolicy), and mTLS where auto mTLS is off."""
    policy: Document = {}
    upgraded = cell.http1_transport is Http1Transport.HTTP2
    if upgraded and workload.speaks(cell.protocol).layer is Layer.L7:
        policy["connectionPool"] = {"http": {"h2UpgradePolicy": "UPGRADE"}}
    auto = modes(cell).of_namespace(workload.namespace) is not MtlsMode.DISABLE
    if not auto and posture.mtls is not MtlsMode.DISABLE:
        policy["tls"] = {"mode": "ISTIO_MUTUAL"}
    if policy:
        spec = {"host": workload.host, "trafficPolicy": policy}
        yield _document("DestinationRule", workload.name, workload.namespace, spec, "networking")


# --- authorization -----------------------------------------------------------------------------------


def _tokens(cell: Cell, called: Mapping[Workload, Posture], jwks: str) -> Iterable[Document]:
    """Of a whole namespace where all of its services read tokens; else of those that do."""
    rule = {"issuer": ISSUER, "jwks": jwks, "forwardOriginalToken": True}
    readers: dict[str, list[Workload]] = {}
    others: set[str] = set()
    for workload, posture in called.items():
        if workload.speaks(cell.protocol).layer is Layer.L4:
            continue
        if posture.authorization in _TOKEN_RULES:
            readers.setdefault(workload.namespace, []).append(workload)
        else:
            others.add(workload.namespace)
    for namespace in sorted(readers):
        if namespace not in others:
            yield _document("RequestAuthentication", "tokens", namespace, {"jwtRules": [rule]})
            continue
        for workload in readers[namespace]:
            spec = {**_selector(workload.name), "jwtRules": [rule]}
            yield _document("RequestAuthentication", f"tokens-{workload.name}", namespace, spec)


_PLACED = {
    RulePlace.BEFORE: ("before", "ALLOW"), RulePlace.AFTER: ("past", "ALLOW"),
    RulePlace.DENY: ("never", "DENY"), RulePlace.HIT: ("before", "ALLOW"),
}  # fmt: skip
"""Entries are scanned in the order of their names: `before-...`, `callers-of-...`, `past-...`."""


def _policy(name: str, workload: Workload, rules: Sequence[Document], action: str = "ALLOW") -> Document:
    spec = {**_selector(workload.name), "action": action, "rules": list(rules)}
    return _document("AuthorizationPolicy", name, workload.namespace, spec)


@dataclass(frozen=True)
class _Demanded:
    """What a rule of each kind asks for."""

    principals: list[str]
    namespaces: list[str]
    methods: list[str]
    paths: list[str]
    prefixes: list[str]
    suffixes: list[str]
    tenant: str
    role: str


class _Rules:
    """Rules of one called workload; all of the same shape, whichever callers they are for."""

    def __init__(self, cell: Cell, workload: Workload, posture: Posture, trust_domain: str) -> None:
        self._cell, self._workload, self._trust_domain = cell, workload, trust_domain
        self._authorization = posture.authorization
        self._by_request = (
            posture.authorization in _TOKEN_RULES and workload.speaks(cell.protocol).layer is Layer.L7
        )

    def allowances(self) -> tuple[Allowance, ...]:
        """What reads no request has one rule, for all callers."""
        if self._by_request:
            return allowances(self._cell, self._workload)
        return (Allowance(self._cell.topology.callers(self._workload.name), ()),)

    def never(self, number: int) -> Document:
        """One that no request meets, of the kind that the cell says."""
        name = no_caller(number)
        if self._cell.rule_kind is RuleKind.WHOLE:
            requests = allowances(self._cell, self._workload)[0].requests
            return self.rule(of_no_caller(number, requests))
        return self._one_demand(
            _Demanded(
                [f"{self._trust_domain}/ns/{name}/sa/{name}"], [name], [name.upper()],
                [f"/{name}"], [f"/{name}/*"], [f"*/{name}"], name, name,
            )
        )  # fmt: skip

    def met_in_part(self, number: int) -> Document:
        """One whose demand, of the kind that the cell says, every allowed request meets; but it also asks for
        a header, which is looked at last and which none has."""
        own = allowances(self._cell, self._workload)[0]
        if self._cell.rule_kind is RuleKind.WHOLE:
            rule = self.rule(own)
        else:
            paths = list(dict.fromkeys(path for _, path in own.requests))
            rule = self._one_demand(
                _Demanded(
                    self._principals(own.callers),
                    sorted({each.namespace for each in own.callers}),
                    list(dict.fromkeys(method for method, _ in own.requests)),
                    paths,
                    [f"{path[:-1]}*" for path in paths],
                    [f"*{path[1:]}" for path in paths],
                    TENANT,
                    ROLE,
                )
            )
        absent = {"key": f"request.headers[{ABSENT_HEADER}]", "values": [no_caller(number)]}
        return {**rule, "when": [*rule.get("when", ()), absent]}

    def _one_demand(self, wanted: _Demanded) -> Document:
        """A rule that asks for one thing, of the kind that the cell says."""
        match self._cell.rule_kind:
            case RuleKind.IDENTITY:
                return _from({"principals": wanted.principals})
            case RuleKind.NAMESPACE:
                return _from({"namespaces": wanted.namespaces})
            case RuleKind.METHOD:
                return _to({"methods": wanted.methods})
            case RuleKind.PATH:
                return _to({"paths": wanted.paths})
            case RuleKind.PATH_PREFIX:
                return _to({"paths": wanted.prefixes})
            case RuleKind.PATH_SUFFIX:
                return _to({"paths": wanted.suffixes})
            case RuleKind.HEADER:
                return {"when": [{"key": f"request.headers[{TENANT_HEADER}]", "values": [wanted.tenant]}]}
            case RuleKind.CLAIM:
                return {"when": [{"key": f"request.auth.claims[{CLAIM}]", "values": [wanted.role]}]}
            case RuleKind.WHOLE:
                raise AssertionError("a rule of many demands, which `rule` makes")

    def _principals(self, callers: Sequence[Workload]) -> list[str]:
        return sorted(
            f"{self._trust_domain}/ns/{each.namespace}/sa/{each.service_account}" for each in callers
        )

    def rule(self, allowed: Allowance) -> Document:
        """One rule that lets these callers send these requests."""
        callers = allowed.callers
        if self._authorization is Authorization.NAMESPACE:
            return {"from": [{"source": {"namespaces": sorted({each.namespace for each in callers})}}]}
        names = self._principals(callers)
        if not self._by_request:
            ports = [str(self._workload.port(self._cell.protocol))]
            return {"from": [{"source": {"principals": names}}], "to": [{"operation": {"ports": ports}}]}
        source: Document = {"requestPrincipals": [f"{ISSUER}/*"]}
        prefix = ""
        if self._authorization is Authorization.FINE:
            source = {"principals": names, **source}
        elif allowed.never_matches:
            prefix = f"/{callers[0].name}"
        operation = {
            "methods": list(dict.fromkeys(method for method, _ in allowed.requests)),
            "paths": list(dict.fromkeys(prefix + path for _, path in allowed.requests)),
        }
        return {
            "from": [{"source": source}],
            "to": [{"operation": operation}],
            "when": [
                {"key": f"request.headers[{TENANT_HEADER}]", "values": [TENANT]},
                {"key": f"request.auth.claims[{CLAIM}]", "values": [ROLE]},
            ],
        }


def _from(source: Document) -> Document:
    return {"from": [{"source": source}]}


def _to(operation: Document) -> Document:
    return {"to": [{"operation": operation}]}


def _selector(name: str) -> Document:
    return {"selector": {"matchLabels": {"app": name}}}


def _document(kind: str, name: str, namespace: str, spec: Document, group: str = "security") -> Document:
    return {
        "apiVersion": f"{group}.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
