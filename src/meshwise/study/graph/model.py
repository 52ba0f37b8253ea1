"""A call graph: services, and what each does for one request. Values; reading files is `study.graph.read`'s.

The words are those of istio/tools' isotope (a script of sleeps, calls and concurrent calls; sizes,
probabilities, error rates; https://github.com/istio/tools/tree/master/isotope). A graph has no cycle and its
first service is the entrypoint, which the client calls; `study.graph.laws` holds that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

from meshwise.study.protocol import SERVICE_PORTS, Protocol
from meshwise.study.security import Authorization, MtlsMode

Ports = tuple[tuple[Protocol, int], ...]
ALL_PORTS: Ports = tuple(SERVICE_PORTS.items())
"""Every protocol on its own port."""


@dataclass(frozen=True)
class Sleep:
    """Do nothing for so long."""

    duration_ns: int


@dataclass(frozen=True)
class Call:
    """Ask another service; with `probability` < 1 only sometimes."""

    service: str
    request_bytes: int | None = None
    """None: the bytes that its own caller sent, passed on as a chain does."""
    probability: float = 1.0


@dataclass(frozen=True)
class Concurrent:
    """All of these at once; done when the last is."""

    steps: tuple[Sleep | Call, ...]


Step = Sleep | Call | Concurrent


@dataclass(frozen=True)
class GraphService:
    """One service and its script, which it goes through in order before it answers."""

    name: str
    namespace: str = "backend"
    script: tuple[Step, ...] = ()
    response_bytes: int | None = None
    """None: as many as the cell says."""
    aggregates: bool = False
    """Its answer also holds all that the called services answered."""
    error_share: float = 0.0
    """This share of requests is answered with status 500, before the script."""
    mtls: MtlsMode | None = None
    """What it demands of its callers in every mesh posture; None: what the posture says."""
    authorization: Authorization | None = None
    """Likewise."""
    ports: Ports = ALL_PORTS

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls of the script, in its order."""
        found: list[Call] = []
        for step in self.script:
            inner = step.steps if isinstance(step, Concurrent) else (step,)
            found += [each for each in inner if isinstance(each, Call)]
        return tuple(found)

    @property
    def callees(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(call.service for call in self.calls))


@dataclass(frozen=True)
class ServiceGraph:
    """Services by name, the entrypoint first."""

    name: str
    services: tuple[GraphService, ...]

    def __hash__(self) -> int:
        return self._hash  # cells are keys of many tables

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.services))

    def __getitem__(self, name: str) -> GraphService:
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, GraphService]:
        return {service.name: service for service in self.services}

    def to_json(self) -> str:
        """One line, the same for equal graphs; `graph_of` is the inverse."""
        return json.dumps(asdict(self), separators=(",", ":"))


@lru_cache(maxsize=64)
def graph_of(text: str) -> ServiceGraph:
    """The graph of `to_json`. Raises KeyError, TypeError, ValueError for a text that is none."""
    raw: dict[str, Any] = json.loads(text)
    return ServiceGraph(raw["name"], tuple(service_of(each) for each in raw["services"]))


def service_of(raw: dict[str, Any]) -> GraphService:
    """A service from its `asdict`, as `to_json` holds it. Raises KeyError, TypeError, ValueError."""
    mtls, authorization = raw["mtls"], raw["authorization"]
    return GraphService(
        **{
            **raw,
            "script": tuple(_step(step) for step in raw["script"]),
            "mtls": None if mtls is None else MtlsMode(mtls),
            "authorization": None if authorization is None else Authorization(authorization),
            "ports": tuple((Protocol(protocol), int(port)) for protocol, port in raw["ports"]),
        }
    )


def _step(raw: dict[str, Any]) -> Step:
    return Concurrent(tuple(_single(each) for each in raw["steps"])) if "steps" in raw else _single(raw)


def _single(raw: dict[str, Any]) -> Sleep | Call:
    return Sleep(**raw) if "duration_ns" in raw else Call(**raw)
