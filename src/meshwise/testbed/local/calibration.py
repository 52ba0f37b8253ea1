"""How much slower this run is: meshwise's own computing, and each proxy's answer to what it is."""

from __future__ import annotations

from collections.abc import Callable

from meshwise.core.patience import Slowness, known_work, measured
from meshwise.mesh.istio import binary as envoy_binary
from meshwise.mesh.linkerd import binary as linkerd_binary
from meshwise.study.model import MeshName, Study


def slowness(study: Study) -> Slowness:
    """Takes less than 0.3 s on an idle machine. Raises MW403, MW811, MW423 as `checks.preflight` does."""
    work: dict[str, Callable[[], object]] = {"computing": known_work}
    if MeshName.ISTIO in study.environments:
        envoy = envoy_binary.envoy_path()
        work["starting Envoy"] = lambda: envoy_binary.introduced(envoy)
    if MeshName.LINKERD in study.environments:
        proxy = linkerd_binary.proxy_path()
        work["starting linkerd2-proxy"] = lambda: linkerd_binary.introduced(proxy)
    return measured(work)


def words(found: Slowness) -> str:
    """For the user, before a slow run; empty for another."""
    if found.factor == 1:
        return ""
    return (
        f"this run is {found.factor:g} times slower than on an idle machine ({found.of}); "
        "whatever is waited for may take so much longer"
    )
