"""What one graph node is told at its start: a frozen value that crosses a process boundary as JSON.

`python -m meshwise.service --spec NODE.json` serves every protocol of `ports` at once and is ready when
GET /healthz answers 200. What to do for one request is said by that request (`service.plan`); the spec
only says which workloads it can call, so that a change of cell needs no restart of a node.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshwise.core import messages
from meshwise.study.graph.model import GraphService, service_of
from meshwise.study.model import SERVICE_PORTS, Protocol

DEADLINE_NS = 5 * 10**9


@dataclass(frozen=True)
class Upstream:
    """A workload that a node can call: where it dials, and what it calls it."""

    address: str
    """IPv4 address that is dialled, as a rule the service address."""
    host: str
    """Host name; the authority of a call is `host:port`."""
    ports: Mapping[Protocol, int] = field(default_factory=lambda: dict(SERVICE_PORTS))

    def authority(self, protocol: Protocol) -> str:
        return f"{self.host}:{self.ports[protocol]}"


@dataclass(frozen=True)
class NodeSpec:
    """One node of the call graph."""

    name: str
    listen: str = "0.0.0.0"
    ports: Mapping[Protocol, int] = field(default_factory=lambda: dict(SERVICE_PORTS))
    next: Upstream | None = None
    """Called when a plan has hops left."""
    leaves: tuple[Upstream, ...] = ()
    """Called in parallel, the first `fan` of them, when a plan has no hops left."""
    scripts: Mapping[str, GraphService] = field(default_factory=dict)
    """By the name that a plan gives: what this node does then."""
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    """By name: whom the scripts call."""
    seed: int = 0
    """Of the draws that scripts make (probabilities, errors)."""
    deadline_ns: int = DEADLINE_NS
    """A call that is not answered after this long has failed."""
    multiplexed_connections: int = 2
    """HTTP/2 connections to each upstream, while they have streams to spare."""
    work_rounds_per_us: float | None = None
    """How much work is one microsecond (`service.work.calibrate`). Give every node of a study the same
    figure, so that all do the same work; None: the node calibrates itself when it starts."""
    date: str = ""
    """Every answer's `date`; empty: none has one, and a proxy in front may add the time of the day."""
    cpu: int | None = None
    """Pin the process to this CPU."""
    spans: str = ""
    """A file: the node takes part in traces and writes its spans there (`service.spans`). Empty: it passes
    a trace context on as it came."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def read(cls, path: Path) -> NodeSpec:
        """Raises MW901 for a file that is not a spec."""
        try:
            return cls.parse(path.read_text())
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise messages.BAD_NODE_SPEC.error(where=str(path), reason=error) from error

    @classmethod
    def parse(cls, text: str) -> NodeSpec:
        raw: dict[str, Any] = json.loads(text)
        raw["ports"] = _ports(raw.get("ports", SERVICE_PORTS))
        raw["next"] = _upstream(raw["next"]) if raw.get("next") else None
        raw["leaves"] = tuple(_upstream(leaf) for leaf in raw.get("leaves", ()))
        raw["scripts"] = {name: service_of(each) for name, each in raw.get("scripts", {}).items()}
        raw["upstreams"] = {name: _upstream(each) for name, each in raw.get("upstreams", {}).items()}
        unknown = {call.service for script in raw["scripts"].values() for call in script.calls} - raw[
            "upstreams"
        ].keys()
        if unknown:
            raise ValueError(f"scripts call {sorted(unknown)}, which are no upstreams")
        return cls(**raw)


def _ports(raw: Mapping[str, int]) -> dict[Protocol, int]:
    return {Protocol(name): int(port) for name, port in raw.items()}


def _upstream(raw: Mapping[str, Any]) -> Upstream:
    ports = _ports(raw.get("ports", SERVICE_PORTS))
    return Upstream(**{**raw, "ports": ports})
