"""Resources as bytes: the same message as protobuf's own reader of JSON makes, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import json_format
from tests.support.mesh_samples import CELL, POSTURES, view

from meshwise.mesh.delivery.encode import Encoder
from meshwise.mesh.delivery.messages import descriptor_of, message_class
from meshwise.mesh.delivery.resources import XdsKind
from meshwise.mesh.istio import posture
from meshwise.mesh.istio.native import NAMES, Native
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Options
from meshwise.mesh.tokens import tokens
from meshwise.study.model import LADDER, Http1Transport

_URL = "type.googleapis.com/"
NATIVE = Native(**{kind: names[0] for kind, names in NAMES.items()})
CELLS = [
    *(replace(CELL, posture=each) for each in POSTURES),
    replace(CELL, posture=LADDER[4], policy_count=3, http1_transport=Http1Transport.HTTP2),
]


def by_library(kind: XdsKind, resource: Any) -> Any:
    """With every type there; unknown ones wrapped as the encoder wraps them."""
    made = message_class(kind.removeprefix(_URL))()
    json_format.ParseDict(wrapped(resource), made, descriptor_pool=made.DESCRIPTOR.file.pool)
    return read(kind, made.SerializeToString())


def read(kind: XdsKind, body: bytes) -> Any:
    """As plain values, those of typed parts too: their bytes may be in another order."""
    made = message_class(kind.removeprefix(_URL)).FromString(body)
    return json_format.MessageToDict(made, descriptor_pool=made.DESCRIPTOR.file.pool)


def wrapped(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [wrapped(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: wrapped(each) for name, each in value.items()}
    if "@type" in found and descriptor_of(found["@type"].removeprefix(_URL)) is None:
        rest = {name: each for name, each in found.items() if name != "@type"}
        return {"@type": f"{_URL}xds.type.v3.TypedStruct", "type_url": found["@type"], "value": rest}
    return found


@pytest.mark.parametrize("options", [Options(), Options(native=NATIVE)], ids=["stand-ins", "native"])
def test_every_resource_is_the_message_that_the_library_reads(options: Options) -> None:
    encoder, seen = Encoder(), 0
    for cell in CELLS:
        here = view(posture.resources(cell, tokens().jwks), options=options)
        for workload in ("client", "node-1"):
            made = translate(here, workload)
            for kind, resources in (
                (XdsKind.CLUSTERS, made.clusters), (XdsKind.ENDPOINTS, made.endpoints),
                (XdsKind.LISTENERS, made.listeners), (XdsKind.ROUTES, made.routes.values()),
            ):  # fmt: skip
                for resource in resources:
                    encoded = encoder.encode(kind, resource)
                    assert read(kind, encoded.body) == by_library(kind, resource), encoded.name
                    seen += 1
    assert seen > 500


def test_only_istios_own_filters_are_not_messages() -> None:
    def bodies(options: Options) -> list[bytes]:
        made = translate(view(posture.resources(CELLS[-1], tokens().jwks), options=options), "node-1")
        return [Encoder().encode(XdsKind.LISTENERS, each).body for each in made.listeners]

    assert not any(b"TypedStruct" in body for body in bodies(Options()))
    assert any(b"stats.PluginConfig" in body for body in bodies(Options(native=NATIVE)))


@pytest.mark.parametrize(
    "fields",
    [
        {"connect_timeout": "1.5s"}, {"connect_timeout": "-0.5s"}, {"connectTimeout": "0.000000001s"},
        {"lb_policy": "RANDOM"}, {"lb_policy": 2}, {"type": "EDS"},
        {"per_connection_buffer_limit_bytes": 5}, {"per_connection_buffer_limit_bytes": 0},
        {"common_lb_config": {"healthy_panic_threshold": {"value": 12.5}}},
        {"circuit_breakers": {"thresholds": [{"max_requests": 4294967295, "track_remaining": True}]}},
        {"metadata": {"filter_metadata": {"a": {"b": [1, None, "x", {"c": False}]}, "d": {}}}},
        {"close_connections_on_host_health_failure": False, "alt_stat_name": "ü"},
        {"max_requests_per_connection": None},
        {"upstream_bind_config": {"source_address": {"address": "::1", "port_value": 0}}},
        {"dns_resolvers": [], "filters": []},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_every_form(fields: dict[str, Any]) -> None:
    resource = {"name": "c", **fields}
    body = Encoder().encode(XdsKind.CLUSTERS, resource).body
    assert read(XdsKind.CLUSTERS, body) == by_library(XdsKind.CLUSTERS, resource)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"colour": "red"}, "has no 'colour'"),
        ({"lb_policy": "WORST"}, "lb_policy: .* has no WORST"),
        ({"connect_timeout": "soon"}, "connect_timeout"),
        ({"alt_stat_name": 5}, "alt_stat_name: 5 is not text"),
        ({"track_timeout_budgets": 1}, "neither true nor false"),
        ({"circuit_breakers": {"thresholds": [{"max_requests": -1}]}}, "circuit_breakers: thresholds: .*-1"),
    ],
)
def test_what_a_type_does_not_have_is_refused_with_the_way_to_it(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Encoder().encode(XdsKind.CLUSTERS, {"name": "c", **fields})


def test_equal_resources_have_equal_versions_and_others_do_not() -> None:
    first, second = (Encoder().encode(XdsKind.CLUSTERS, {"name": "c", "type": "EDS"}) for _ in range(2))
    assert first == second
    assert Encoder().encode(XdsKind.CLUSTERS, {"name": "c", "type": "STATIC"}).version != first.version
