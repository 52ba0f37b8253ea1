"""A findings document by hand, as real ones look: numbers invented, fixed, consistent with one another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshwise.analysis.sentence import of_contrast
from meshwise.findings.document import read_finding, row
from meshwise.findings.finding import Finding
from meshwise.findings.flag import DESCRIPTIVE
from meshwise.findings.metric import MetricKey
from meshwise.findings.subject import Kind, read_subject
from meshwise.stats.verdict import Direction, Verdict

POSTURES = ("plaintext", "permissive", "strict", "strict+namespace", "strict+fine")
RUNG_COST = {
    "plaintext": 1.0,
    "permissive": 1.26,
    "strict": 1.265,
    "strict+namespace": 1.31,
    "strict+fine": 1.47,
}
"""Cost over no mesh, in units of the plaintext sidecar's."""
METRIC_BASE = {  # metric: (no mesh, cost of the plaintext sidecar, half-width as a share, noise floor, unit)
    "response_p50_us": (212.0, 131.0, 0.012, 4.1, "us"),
    "response_p99_us": (584.0, 342.0, 0.04, 38.0, "us"),
    "cpu_us_per_request": (0.0, 96.0, 0.008, 0.9, "us"),
    "memory_bytes": (0.0, 104_000_000.0, 0.003, 400_000.0, "bytes"),
}
PROTOCOL_FACTOR = {"http1": 1.0, "http2": 1.18, "grpc": 1.31}
MESH_FACTOR = {"istio": 1.0, "linkerd": 0.62}


def value_of(metric: str, mesh: str, posture: str, protocol: str) -> float:
    base, sidecar, *_ = METRIC_BASE[metric]
    added = 0.0 if posture == "none" else sidecar * RUNG_COST[posture] * MESH_FACTOR[mesh]
    return (base + added) * (1.0 if metric == "memory_bytes" else PROTOCOL_FACTOR[protocol])


STATUSES = {"ok": 96, "failed": 1, "unproven": 0}
NOT_APPLICABLE = [
    {
        "mesh": "linkerd",
        "posture": "strict+fine",
        "protocol": protocol,
        "reason": "Linkerd has no rule on a JWT claim",
    }
    for protocol in ("http1", "grpc")
]


def findings(
    meshes: tuple[str, ...] = ("istio",), protocols: tuple[str, ...] = ("http1",), blocks: int = 12
) -> dict[str, Any]:
    """A whole document. `meshes` without `none`."""
    found = [
        row(entry)
        for protocol in protocols
        for metric in METRIC_BASE
        for entry in _of(metric, protocol, meshes, blocks)
    ]
    found += [row(entry) for metric in METRIC_BASE for entry in _floors(metric, blocks)]
    return {
        "schema_version": 1,
        "study": {
            "name": "ladder",
            "seed": 7,
            "blocks": blocks,
            "executions": blocks,
            "confidence": 0.95,
            "primary_metrics": ["response_p50_us", "response_p99_us", "cpu_us_per_request"],
        },
        "environment": environment(),
        "findings": found,
    }


LENGTHS = (1, 2, 4)


def chain(meshes: tuple[str, ...] = ("istio",), blocks: int = 12) -> dict[str, Any]:
    """`findings` at three lengths of the chain (costs grow with the length), with the slopes over it."""
    document = findings(meshes, blocks=blocks)
    found = []
    for entry in document["findings"]:
        if entry["kind"] == "noise_floor":
            found.append(entry)
            continue
        for length in LENGTHS:
            grown = {
                name: entry[name] * length for name in ("estimate", "low", "high") if entry[name] is not None
            }
            found.append(entry | grown | {"scope": entry["scope"] | {"length": length}})
    for level in [e for e in document["findings"] if e["kind"] == "level" and e["estimate"]]:
        if level["metric"] == "memory_bytes":
            continue
        posture = level["scope"]["posture"]
        noisy = posture == "permissive"
        half = level["estimate"] * (1.4 if noisy else 0.04)
        found.append(
            level
            | {
                "id": f"slope/{level['id']}",
                "kind": "difference",
                "scope": level["scope"] | {"length": "1 to 4", "factor": "length", "part": "slope"},
                "low": level["estimate"] - half,
                "high": level["estimate"] + half,
                "unit": "us/node",
                "verdict": "not distinguishable" if noisy else "distinguishable",
                "direction": None if noisy else "costs",
                "mde": half,
                "floor": half / 4,
            }
        )
        found[-1] = row(_told(read_finding(found[-1])))
    return document | {"findings": found}


def factorial() -> dict[str, Any]:
    """Two features on their own and together, in two protocols that differ in connections too; in one they
    are dearer together."""
    found: list[Finding] = []
    for protocol, extra, connections in (("http1", 9.0, 16), ("grpc", 1.0, 4)):
        for metric in ("response_p50_us", "response_p99_us"):
            half = METRIC_BASE[metric][3]
            scope = {"protocol": protocol, "rate_rps": 800.0, "connections": connections, "streams": 1}
            scope |= {"shape": "chain", "length": 1, "policy_count": 0}
            values = {"plaintext": 340.0, "strict": 380.0, "plaintext+request": 350.0}
            values["strict+request"] = 390.0 + extra
            found += [
                _finding(Kind.LEVEL, metric, scope | {"mesh": "istio", "posture": posture}, value, half, 12)
                for posture, value in values.items()
            ]
            found.append(
                _finding(Kind.LEVEL, metric, scope | {"mesh": "none", "posture": "none"}, 212.0, half, 12)
            )
            steps = {"mesh": "istio", "from": "none", "to": "strict+request"}
            top = values["strict+request"] - 212.0
            found.append(_verdict(_finding(Kind.INCREMENT, metric, scope | steps, top, half, 12), half))
            name = {"mesh": "istio", "posture": "strict+request"}
            name |= {"interaction": "mtls=strict x authorization=request"}
            both = _finding(Kind.DIFFERENCE, metric, scope | name, extra, half, 12)
            described = metric == "response_p99_us"
            flags = (DESCRIPTIVE(),) if described else ()
            found.append(replace(both, flags=flags) if described else _verdict(both, half))
    document = findings()
    document["study"] |= {"name": "features", "primary_metrics": ["response_p50_us", "response_p99_us"]}
    return document | {"findings": [row(finding) for finding in found]}


def policies() -> dict[str, Any]:
    """A factor that means something in some postures only: long names, a rung for every level."""
    document = findings(("istio",))
    found = []
    for entry in document["findings"]:
        if not {"posture", "to"} & entry["scope"].keys():
            found.append(entry)
            continue
        posture = str(entry["scope"].get("posture") or entry["scope"].get("to"))
        for count in (0, 100, 1000) if "+" in posture else (0,):
            found.append(entry | {"scope": entry["scope"] | {"policy_count": count}})
    return document | {"findings": found}


def environment(testbed: str = "local") -> dict[str, Any]:
    return {
        "testbed": testbed,
        "meshwise": "0.1.0",
        "machine": {
            "cpu": "AMD EPYC 7B13",
            "cpus": 2,
            "memory_bytes": 8_330_000_000,
            "kernel": "6.8.0-45-generic",
            "os": "Debian 12",
        },
        "proxies": {
            "istio": {
                "proxy": "Envoy",
                "version": "1.36.2",
                "revision": "0f2c8e9a7b31",
                "build": "Clean/RELEASE",
                "tls_library": "BoringSSL",
            }
        },
        "fidelity": [
            {
                "code": "F01",
                "what": "upstream Envoy, not istio-proxy",
                "effect": "istio.stats and metadata exchange are absent, so CPU is a lower bound",
                "mesh": "istio",
            },
            {
                "code": "F02",
                "what": "client and server share two CPUs",
                "effect": "latency includes competition for the CPU",
                "mesh": "istio",
            },
        ],
    }


def _floors(metric: str, blocks: int) -> list[Finding]:
    floor = METRIC_BASE[metric][3]
    return [
        _finding(
            Kind.NOISE_FLOOR,
            metric,
            {"control": control, "cells": "2 cells"},
            floor * factor,
            floor * 0.3,
            blocks,
        )
        for control, factor in (("same", 1.0), ("twin", 1.4))
    ]


def _of(metric: str, protocol: str, meshes: tuple[str, ...], blocks: int) -> list[Finding]:
    scope = {
        "protocol": protocol,
        "rate_rps": 800.0,
        "request_bytes": 0,
        "response_bytes": 1024,
        "connections": 16,
        "streams": 1,
        "shape": "chain",
        "length": 1,
        "key_type": "rsa-2048",
        "policy_count": 0,
    }
    found = []
    none = _level(metric, scope, "none", "none", blocks)
    found.append(none)
    for mesh in meshes:
        below = "none"
        for posture in POSTURES:
            if mesh == "linkerd" and posture == "strict+fine":
                continue
            found.append(_level(metric, scope, mesh, posture, blocks))
            found.append(_increment(metric, scope, mesh, below, posture, blocks))
            if below != "none":
                found.append(_increment(metric, scope, mesh, "none", posture, blocks))
            below = posture
    if len(meshes) == 2:
        found += [_difference(metric, scope, meshes, posture, blocks) for posture in POSTURES[:4]]
    return found


def _level(metric: str, scope: dict[str, Any], mesh: str, posture: str, blocks: int) -> Finding:
    value = value_of(metric, mesh, posture, scope["protocol"])
    half = value * METRIC_BASE[metric][2]
    return _finding(Kind.LEVEL, metric, scope | {"mesh": mesh, "posture": posture}, value, half, blocks)


def _increment(metric: str, scope: dict[str, Any], mesh: str, lower: str, upper: str, blocks: int) -> Finding:
    cost = value_of(metric, mesh, upper, scope["protocol"]) - value_of(metric, mesh, lower, scope["protocol"])
    return _verdict(
        _finding(
            Kind.INCREMENT,
            metric,
            scope | {"mesh": mesh, "from": lower, "to": upper},
            cost,
            METRIC_BASE[metric][3] * 0.9,
            blocks,
        ),
        METRIC_BASE[metric][3],
    )


def _difference(
    metric: str, scope: dict[str, Any], meshes: tuple[str, ...], posture: str, blocks: int
) -> Finding:
    first, second = meshes
    cost = value_of(metric, first, posture, scope["protocol"]) - value_of(
        metric, second, posture, scope["protocol"]
    )
    entry = _finding(
        Kind.DIFFERENCE,
        metric,
        scope | {"mesh": f"{first} - {second}", "posture": posture, "from": second, "to": first},
        cost,
        METRIC_BASE[metric][3] * 1.3,
        blocks,
    )
    return _verdict(entry, METRIC_BASE[metric][3] * 1.5)


def _told(finding: Finding) -> Finding:
    """With the sentence that the analysis would make of it."""
    setting = f"{finding.levels.get('protocol')} at 800/s"
    return replace(finding, sentence=of_contrast(replace(finding, higher_in=finding.n), setting))


def _verdict(finding: Finding, floor: float) -> Finding:
    assert finding.estimate is not None
    clear = abs(finding.estimate) > floor
    judged = replace(
        finding,
        verdict=Verdict.DISTINGUISHABLE if clear else Verdict.NOT_DISTINGUISHABLE,
        direction=(Direction.COSTS if finding.estimate > 0 else Direction.SAVES) if clear else None,
        floor=floor,
        mde=floor * 1.2,
    )
    return _told(judged)


def _finding(
    kind: Kind, metric: str, scope: dict[str, Any], estimate: float, half: float | None, n: int
) -> Finding:
    return Finding(
        id="/".join([kind, metric, *(str(value) for value in scope.values())]),
        subject=read_subject(kind, scope),
        key=MetricKey(metric),
        estimate=estimate,
        low=None if half is None else estimate - half,
        high=None if half is None else estimate + half,
        confidence=0.95,
        unit=METRIC_BASE[metric][4],
        n=n,
        method="t interval over executions",
    )
