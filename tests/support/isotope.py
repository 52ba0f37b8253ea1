"""A service graph as a file of istio/tools' isotope, for tests that read it back."""

from __future__ import annotations

import json
from typing import Any

from meshwise.study.graph.model import Call, Concurrent, GraphService, ServiceGraph, Sleep, Step


def as_yaml(graph: ServiceGraph) -> str:
    """JSON is YAML; numbers as isotope has them."""
    entry = graph.services[0].name
    services = [_service(service, service.name == entry) for service in graph.services]
    return json.dumps({"name": graph.name, "services": services}, indent=1)


def _service(service: GraphService, entry: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"name": service.name, "namespace": service.namespace}
    said |= {"isEntrypoint": True} if entry else {}
    said |= {} if service.response_bytes is None else {"responseSize": service.response_bytes}
    said |= {"aggregates": True} if service.aggregates else {}
    said |= {"errorRate": service.error_share} if service.error_share else {}
    said |= {"mtls": service.mtls} if service.mtls else {}
    said |= {"authorization": service.authorization} if service.authorization else {}
    return said | {"script": [_step(step) for step in service.script]}


def _step(step: Step) -> Any:
    if isinstance(step, Concurrent):
        return [_single(each) for each in step.steps]
    return _single(step)


def _single(step: Sleep | Call) -> dict[str, Any]:
    if isinstance(step, Sleep):
        return {"sleep": f"{step.duration_ns}ns"}
    size = {} if step.request_bytes is None else {"size": step.request_bytes}
    chance = {} if step.probability == 1 else {"probability": round(100 * step.probability)}
    return {"call": {"service": step.service, **size, **chance}}
