"""Listener filters: what finds out where a connection was going, and what it speaks.

Mirrors populateListenerFilters, buildTLSInspector and buildHTTPInspector of
pilot/pkg/networking/core/listener_inbound.go: an inspector only where a chain needs what it finds, not for
ports that do not. What counts for undeclared ports is kept under port 0, which no connection has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from meshwise.mesh.istio import tls
from meshwise.mesh.istio.view import Json

_TYPE = "type.googleapis.com/envoy.extensions.filters.listener"
_UNDECLARED = 0


def of_inbound(chains: Sequence[Json]) -> list[Json]:
    """Those of virtualInbound."""
    filters: list[Json] = [_filter("original_dst", "original_dst.v3.OriginalDst")]
    with_tls, with_http = _by_port(chains, _matches_tls), _by_port(chains, _matches_plain_http)
    if any(with_tls.values()):
        inspector = _filter(
            "tls_inspector", "tls_inspector.v3.TlsInspector", {"initial_read_buffer_size": 512}
        )
        if with_tls.get(_UNDECLARED):
            disabled = _ports([port for port, needed in with_tls.items() if not needed])
        else:  # an undeclared port needs none by default: on only where it is needed
            disabled = {"not_match": _ports([port for port, needed in with_tls.items() if needed])}
        filters.append(_disabled(inspector, disabled))
    if any(with_http.values()):
        disabled = _ports([port for port, needed in with_http.items() if not needed])
        filters.append(_disabled(http(), disabled))
    return filters


def http() -> Json:
    return _filter("http_inspector", "http_inspector.v3.HttpInspector")


def inspects(listener: Json, name: str, port: int) -> bool:
    """Whether this inspector looks at connections to the port; for the simulation."""
    for each in listener.get("listener_filters", ()):
        if each["name"] == f"envoy.filters.listener.{name}":
            return not _covers(each.get("filter_disabled", {}), port)
    return False


def _covers(predicate: Json, port: int) -> bool:
    if "not_match" in predicate:
        return not _covers(predicate["not_match"], port)
    if "or_match" in predicate:
        return any(_covers(rule, port) for rule in predicate["or_match"]["rules"])
    ports = predicate.get("destination_port_range")
    return bool(ports and ports["start"] <= port < ports["end"])


def _matches_tls(chain: Json) -> bool:
    return bool(chain["filter_chain_match"].get("transport_protocol") == "tls")


def _matches_plain_http(chain: Json) -> bool:
    return not set(tls.PLAIN_ALPN).isdisjoint(chain["filter_chain_match"].get("application_protocols", ()))


def _by_port(chains: Sequence[Json], needs: Callable[[Json], bool]) -> Mapping[int, bool]:
    """Whether any chain of the port needs it, in the order of ports."""
    ports: dict[int, bool] = {}
    for chain in chains:
        port = chain["filter_chain_match"].get("destination_port", _UNDECLARED)
        ports[port] = ports.get(port, False) or needs(chain)
    return dict(sorted(ports.items()))


def _ports(ports: Sequence[int]) -> Json:
    rules = [{"destination_port_range": {"start": port, "end": port + 1}} for port in ports]
    if len(rules) < 2:
        return rules[0] if rules else {}
    return {"or_match": {"rules": rules}}


def _disabled(listener_filter: Json, predicate: Json) -> Json:
    return {**listener_filter, "filter_disabled": predicate} if predicate else listener_filter


def _filter(name: str, kind: str, config: Json | None = None) -> Json:
    typed = {"@type": f"{_TYPE}.{kind}", **(config or {})}
    return {"name": f"envoy.filters.listener.{name}", "typed_config": typed}
