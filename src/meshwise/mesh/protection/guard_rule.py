"""A rule that forbids, laid over `strict+namespace`: everyone of the client's namespace may do everything but
DELETE, the path `<allowed>/admin`, the host `admin.example`, and requests of the tenant `green`.

Istio has DENY for that. Linkerd has none: a route that nobody is allowed to takes these requests, and the
namespace is allowed to a route for all the rest (a policy of the Server would hold for every route). Its
inbound routes are written here without a host.
"""

from __future__ import annotations

from typing import Any

import yaml

from meshwise.mesh.request import OTHER_TENANT, TENANT_HEADER, path_of
from meshwise.mesh.writing import written
from meshwise.study.model import Cell, MeshName

METHOD = "DELETE"
HOST = "admin.example"


def guarded_path(cell: Cell) -> str:
    return f"{path_of(cell)}/admin"


def over(mesh: MeshName, cell: Cell, resources: str) -> str:
    """The resources of a posture with the rule laid over them. Pure."""
    documents = [each for each in yaml.safe_load_all(resources) if each]
    entry = cell.topology.entry
    if mesh is MeshName.ISTIO:
        return written([*documents, _deny(cell, entry.name, entry.namespace)])
    return written(_routes(cell, entry.name, entry.namespace, documents))


def _deny(cell: Cell, name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "guard", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "action": "DENY",
            "rules": [
                {"to": [{"operation": {"methods": [METHOD]}}]},
                {"to": [{"operation": {"paths": [guarded_path(cell)]}}]},
                {"to": [{"operation": {"hosts": [HOST]}}]},
                {"when": [{"key": f"request.headers[{TENANT_HEADER}]", "values": [OTHER_TENANT]}]},
            ],
        },
    }


def _routes(cell: Cell, name: str, namespace: str, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    server = next(
        each["metadata"]["name"]
        for each in documents
        if each["kind"] == "Server" and each["spec"]["podSelector"]["matchLabels"].get("app") == name
    )
    guarded: list[dict[str, Any]] = [
        {"method": METHOD},
        {"path": {"type": "Exact", "value": guarded_path(cell)}},
        {"headers": [{"name": TENANT_HEADER, "value": OTHER_TENANT}]},
    ]
    rest = {"path": {"type": "PathPrefix", "value": "/"}}
    for each in documents:
        target = each.get("spec", {}).get("targetRef", {})
        if each["kind"] == "AuthorizationPolicy" and target.get("name") == server:
            target |= {"kind": "HTTPRoute", "name": f"rest-of-{name}"}
    made = [(f"guard-of-{name}", guarded), (f"rest-of-{name}", [rest])]
    return documents + [
        {
            "apiVersion": "policy.linkerd.io/v1beta3",
            "kind": "HTTPRoute",
            "metadata": {"name": route, "namespace": namespace},
            "spec": {
                "parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": server}],
                "rules": [{"matches": matches}],
            },
        }
        for route, matches in made
    ]
