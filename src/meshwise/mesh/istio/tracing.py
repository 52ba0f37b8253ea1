"""What istiod configures for spans, which are not collected: no provider is set, but sampling is decided and
the proxy holds the tags.

Mirrors pilot/pkg/networking/core/tracing.go and pilot/pkg/xds/requestidextension/.
"""

from __future__ import annotations

from meshwise.mesh.istio.authorization import SHADOW_PREFIX
from meshwise.mesh.istio.kinds import Action
from meshwise.mesh.istio.view import Json, Service, View

CLUSTER_ID = "Kubernetes"
"""What istiod and its proxies call the cluster (its flag `--clusterID`)."""
_UUID = "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
_RBAC_FILTER = "envoy.filters.http.rbac"


def settings(view: View, owner: Service) -> Json:
    """The connection manager's part: spans, and the identifiers of requests."""
    return {
        "tracing": {
            "client_sampling": {"value": 100},
            "overall_sampling": {"value": 100},
            "random_sampling": {"value": 1},
            "custom_tags": sorted([*_who(view, owner), *_dry_runs()], key=lambda tag: str(tag["tag"])),
        },
        "request_id_extension": {"typed_config": {"@type": _UUID, "use_request_id_for_trace_sampling": True}},
    }


def _who(view: View, owner: Service) -> list[Json]:
    facts = {
        "canonical_revision": owner.labels["service.istio.io/canonical-revision"],
        "canonical_service": owner.labels["service.istio.io/canonical-name"],
        "cluster_id": CLUSTER_ID,
        "mesh_id": view.trust_domain,
        "namespace": owner.namespace,
    }
    return [{"tag": f"istio.{name}", "literal": {"value": value}} for name, value in facts.items()]


def _dry_runs() -> list[Json]:
    """What policies of a dry run would have done."""
    found = {"policy.name": "shadow_effective_policy_id", "policy.result": "shadow_engine_result"}
    return [
        {
            "tag": f"istio.authorization.dry_run.{str(action).lower()}_{name}",
            "metadata": {
                "kind": {"request": {}},
                "metadata_key": {"key": _RBAC_FILTER, "path": [{"key": SHADOW_PREFIX[action] + key}]},
            },
        }
        for action in (Action.ALLOW, Action.DENY)
        for name, key in found.items()
    ]
