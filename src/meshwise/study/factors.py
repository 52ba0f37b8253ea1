"""The table of factors: one row each, in the order of the fields of `Cell`.

Schema, expansion, names of cells, the archive's rows, contrasts, headings and `plan` go through it. A further
factor is a field of `Cell`, a row here, and what carries it out. `tests/unit/test_study_factors.py` holds the
fields of `Cell` against the table, and shows of every factor that two levels of it are told apart wherever
they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from meshwise.core.units import format_size, plural
from meshwise.study.bank import Stores
from meshwise.study.factor import CellColumn, ColumnKind, Factor, FactorRole, SlopeUnit
from meshwise.study.factor import column as _column
from meshwise.study.file.pattern_keys import Churn, Sizes
from meshwise.study.file.scalars import Rate, Share, one_of
from meshwise.study.forbidden import FORBIDDEN, in_a_mesh
from meshwise.study.graph.model import ServiceGraph, graph_of
from meshwise.study.levels import (
    Http1Transport,
    KeyType,
    MeshName,
    RuleKind,
    RulePlace,
    TlsGroup,
)
from meshwise.study.load.payload import Payload, parse_payload
from meshwise.study.protocol import Protocol, Streaming
from meshwise.study.security import Authorization, MtlsMode, Posture
from meshwise.study.topology import TopologyKind
from meshwise.study.validation import VALIDATION, with_mtls

CONTEXT, FREE = FactorRole.CONTEXT, FactorRole.FREE
_INT, _NUMBER, _TEXT = ColumnKind.INT, ColumnKind.NUMBER, ColumnKind.TEXT
_OF_THE_BANK = "the bank's operations have sizes of their own"


def _with_authorization(posture: Posture) -> bool:
    return posture.authorization is not Authorization.NONE


def _in_permissive(posture: Posture) -> bool:
    return posture.mtls is MtlsMode.PERMISSIVE


def _posture_columns(posture: Posture) -> Mapping[str, Any]:
    mtls = None if posture.mtls is None else str(posture.mtls)
    return {"posture": posture.name, "mtls": mtls, "authorization": str(posture.authorization)}


def _posture_of(row: Mapping[str, Any]) -> Posture:
    mtls = None if row["mtls"] is None else MtlsMode(row["mtls"])
    return Posture(mtls, Authorization(row["authorization"]))


def _graph_text(graph: ServiceGraph | None) -> str | None:
    return None if graph is None else graph.to_json()


def _size(value: Any) -> str:
    return str(value) if isinstance(value, Payload) else format_size(value)


def _divided(side: str, level: Any) -> Mapping[str, Any]:
    """A distribution is kept as text, which is ordered and archived like any level, beside its mean."""
    if isinstance(level, Payload):
        return {f"{side}_bytes": round(level.mean_bytes), f"{side}_sizes": str(level)}
    return {f"{side}_bytes": level}


_PLACES = {
    RulePlace.BEFORE: "", RulePlace.AFTER: "after the match", RulePlace.DENY: "denying",
    RulePlace.HIT: "each met but for a header",
}  # fmt: skip

FACTORS: tuple[Factor, ...] = (
    Factor(
        field="mesh", role=FactorRole.COMPARED, read=MeshName, heading="environment",
        columns=_column("mesh", _TEXT, "`none`, `istio`, `linkerd`"), named=lambda cell: str(cell.mesh),
    ),
    Factor(
        field="posture", role=FactorRole.COMPARED, read=_posture_of, write=_posture_columns,
        columns=(
            CellColumn("posture", _TEXT, "the ladder's name, or `<mtls>+<authorization>`"),
            CellColumn("mtls", _TEXT, "`disable`, `permissive`, `strict`; null without a mesh"),
            CellColumn("authorization", _TEXT, "`none`, `namespace`, `fine`, `request`"),
        ),
        heading="posture", text=lambda posture: posture.name, named=lambda cell: cell.posture.name,
    ),
    Factor(
        field="protocol", key="protocol", role=CONTEXT, read=Protocol, type=one_of("protocol", Protocol),
        default=Protocol.HTTP1, about="Default: http1.", heading="protocol", short=str,
        columns=_column("protocol", _TEXT, "`http1`, `http2`, `grpc`, `tcp`"),
        named=lambda cell: str(cell.protocol),
    ),
    Factor(
        field="rate_rps", key="rate", role=CONTEXT, type=Rate, default=500.0, numeric=True,
        about="Requests per second. Default: 500/s.",
        columns=_column("rate_rps", _NUMBER, "offered requests per second"),
        heading="rate", text=lambda rate: f"{rate:g}/s" if rate else "searched",
        short=lambda rate: f"{rate:g}/s" if rate else "rate searched",
        named=lambda cell: f"{cell.rate_rps:g}rps" if cell.rate_rps else "searched",
    ),
    Factor(
        field="request_bytes", key="request", role=CONTEXT, type=Sizes, default=128, neutral=0, numeric=True,
        about="Payload of a request: a size, or a distribution. Default: 128B.",
        columns=_column("request_bytes", _INT, "payload of a request"),
        split=lambda level: _divided("request", level),
        join=lambda cell: parse_payload(cell.request_sizes) if cell.request_sizes else cell.request_bytes,
        without={TopologyKind.BANK: _OF_THE_BANK},
        heading="request", text=_size, short=lambda size: f"request {format_size(size)}",
        spoken=lambda size, _: f"{size:d} B requests", named=lambda cell: f"{cell.request_bytes}B",
        growth=SlopeUnit(1024, "each further KiB of request", "/KiB", "size of the request"),
    ),
    Factor(
        field="response_bytes", key="response", role=CONTEXT, type=Sizes, default=1024, neutral=0,
        numeric=True,
        about="Payload of a response: a size, or a distribution. Default: 1KiB.",
        columns=_column("response_bytes", _INT, "payload of a response"),
        split=lambda level: _divided("response", level),
        join=lambda cell: parse_payload(cell.response_sizes) if cell.response_sizes else cell.response_bytes,
        without={TopologyKind.BANK: _OF_THE_BANK},
        heading="response", text=_size, short=lambda size: f"response {format_size(size)}",
        spoken=lambda size, _: f"{size:d} B responses", named=lambda cell: f"{cell.response_bytes}B",
        growth=SlopeUnit(1024, "each further KiB of response", "/KiB", "size of the response"),
    ),
    Factor(
        field="connections", key="connections", role=CONTEXT, default=16, numeric=True,
        type=Annotated[int, Field(ge=1, le=1024)], about="Connections of the instrument. Default: 16.",
        columns=_column("connections", _INT, "connections of the instrument"),
        heading="connections", short=lambda count: plural(count, "connection"),
        spoken=lambda count, _: plural(count, "connection"),
        named=lambda cell: f"{cell.connections}x{cell.streams}",
    ),
    Factor(
        field="streams", key="streams", role=CONTEXT, default=1, ordinary=(1,), numeric=True,
        type=Annotated[int, Field(ge=1, le=1000)],
        about="Concurrent streams per connection; http1 and tcp have one. Default: 1.",
        columns=_column("streams", _INT, "concurrent streams per connection"),
        heading="streams", short=lambda count: f"{plural(count, 'stream')} per connection",
        spoken=lambda count, _: f"{count:d} streams each",
    ),  # its name stands with that of `connections`
    Factor(
        field="shape", role=CONTEXT, read=TopologyKind, heading="topology",
        columns=_column(
            "shape", _TEXT, "`chain`, `fanout`, `fanout-sequential`, `aggregation`, `tree`, `graph`, `bank`"
        ),
        named=lambda cell: cell.topology.name,
    ),
    Factor(
        field="length", key="length", role=CONTEXT, default=1, neutral=1, numeric=True,
        type=Annotated[int, Field(ge=1, le=16)],
        about="Nodes in the chain, leaves of a fan-out or aggregation, levels of the tree. Default: 1.",
        columns=_column(
            "length", _INT,
            "nodes in the chain, leaves of the fan-out or aggregation, levels of the tree; else 1",
        ),
        without={
            TopologyKind.GRAPH: "a service graph has the services that it has",
            TopologyKind.BANK: "the bank has the services that it has",
        },
        heading="length", short=lambda count: plural(count, "node"),
        spoken=lambda count, kind: f"{kind} of {count:d}",
        growth=SlopeUnit(1, "each further {shape} node", "/node", "nodes of the {shape}"),
    ),  # its name is in the topology's
    Factor(
        field="key_type", key="key", role=FREE, read=KeyType, type=one_of("key type", KeyType),
        stepped=True,
        # istio: pilot/pkg/features, ECC_SIGNATURE_ALGORITHM unset; linkerd: linkerd/app/core
        default_of={
            MeshName.NONE: KeyType.RSA_2048, MeshName.ISTIO: KeyType.RSA_2048,
            MeshName.LINKERD: KeyType.ECDSA_P256,
        },
        about="Key of the certificates. Default: what each mesh issues by default.",
        columns=_column("key_type", _TEXT, "key of the certificates"), concerns=with_mtls,
        heading="key", short=lambda kind: f"{kind} key", spoken=lambda kind, _: f"{kind} keys",
        named=lambda cell: str(cell.key_type),
    ),
    Factor(
        field="policy_count", key="policies", role=FREE, default=0, ordinary=(0,), numeric=True,
        type=Annotated[int, Field(ge=0, le=10_000)],
        about="Authorization entries scanned before the one that matches. Default: 0.",
        columns=_column("policy_count", _INT, "authorization entries scanned before the one that matches"),
        concerns=_with_authorization,
        needs_posture=(
            "with authorization", "add `strict+namespace` or `strict+fine`, or leave `policies` out",
        ),
        says_none=True, heading="policies", short=lambda count: f"{count:g} policies",
        spoken=lambda count, _: f"{count:d} policy entries",
        named=lambda cell: f"{cell.policy_count}policies",
        growth=SlopeUnit(
            100, "each further hundred policy entries", "/100 entries", "number of policy entries"
        ),
    ),
    Factor(
        field="plaintext_share", key="plaintext_share", role=FREE, type=Share, default=0.0, ordinary=(0,),
        numeric=True, about="Share of the load from outside the mesh, in `permissive`. Default: 0.",
        columns=_column("plaintext_share", _NUMBER, "share of the load from outside the mesh"),
        concerns=_in_permissive,
        needs_posture=("permissive", "add the posture `permissive`, or leave `plaintext_share` out"),
        says_none=True, heading="plaintext", text=lambda share: f"{100 * share:.3g}%",
        short=lambda share: f"{100 * share:.3g}% plaintext clients" if share else "no plaintext clients",
        spoken=lambda share, _: f"{share:.0%} plaintext clients" if share else "",
        named=lambda cell: f"{cell.plaintext_share:g}plaintext" if cell.plaintext_share else "",
    ),
    Factor(
        field="http1_transport", key="http1_transport", role=FREE, read=Http1Transport,
        type=one_of("HTTP/1.1 transport", Http1Transport), default=Http1Transport.DEFAULT,
        ordinary=(Http1Transport.DEFAULT,), concerns=in_a_mesh, protocols=frozenset({Protocol.HTTP1}),
        about="How HTTP/1.1 travels between sidecars. Default: as each mesh does it unasked.",
        columns=_column(
            "http1_transport", _TEXT, "how HTTP/1.1 travels between sidecars: `default`, `http1`, `http2`",
            True,
        ),
        heading="http1 as", short=lambda way: f"by {way}", spoken=lambda way, _: f"{way} between sidecars",
        named=lambda cell: (
            f"by-{cell.http1_transport}" if cell.http1_transport is not Http1Transport.DEFAULT else ""
        ),
    ),
    Factor(
        field="tls_group", key="tls_group", role=FREE, read=TlsGroup, type=one_of("TLS group", TlsGroup),
        stepped=True,
        default=TlsGroup.DEFAULT, ordinary=(TlsGroup.DEFAULT,), concerns=with_mtls,
        about="Group of the TLS key exchange between sidecars. Default: what each mesh uses unasked.",
        columns=_column(
            "tls_group", _TEXT, "group of the key exchange: `default`, `x25519`, `x25519mlkem768`", True
        ),
        heading="TLS group", short=lambda group: f"TLS group {group}",
        spoken=lambda group, _: f"TLS group {group}",
        named=lambda cell: str(cell.tls_group) if cell.tls_group is not TlsGroup.DEFAULT else "",
    ),
    Factor(
        field="graph", role=FactorRole.CONSTANT, read=lambda text: graph_of(text) if text else None,
        write=_graph_text,
        columns=_column(
            "graph", ColumnKind.REPEATED, "the service graph as JSON, where the shape is `graph`", True
        ),
    ),
    Factor(
        field="stores", key="stores", role=FREE, read=Stores, type=one_of("way to the stores", Stores),
        default=Stores.MESHED, ordinary=(Stores.MESHED,), concerns=in_a_mesh,
        about="How the bank reaches its stores: through the sidecars, or past them. Default: meshed.",
        columns=_column(
            "stores", _TEXT, "how the bank reaches database and cache: `meshed`, `direct`", True
        ),
        heading="stores", short=lambda way: f"{way} stores", spoken=lambda way, _: f"{way} stores",
        named=lambda cell: f"{cell.stores}-stores" if cell.stores is not Stores.MESHED else "",
    ),
    Factor(
        field="requests_per_connection", key="requests_per_connection", role=CONTEXT, default=0,
        ordinary=(0,), numeric=True, type=Annotated[int, Field(ge=0, le=1_000_000)],
        about="Open connections on demand, close each after so many requests. Default: 0, kept.",
        columns=_column(
            "requests_per_connection", _INT, "after so many a connection ends; 0: all are kept", True
        ),
        heading="per connection", text=lambda count: str(count) if count else "kept",
        short=lambda count: f"{plural(count, 'request')} per connection" if count else "kept connections",
        spoken=lambda count, _: f"{count:d} requests per connection" if count else "",
        named=lambda cell: f"{cell.requests_per_connection}each" if cell.requests_per_connection else "",
    ),
    Factor(
        field="churn_per_s", key="churn", role=CONTEXT, type=Churn, default=0.0, ordinary=(0,), numeric=True,
        about="Kept connections that are replaced per second. Default: 0/s.",
        columns=_column("churn_per_s", _NUMBER, "kept connections that are replaced per second", True),
        heading="churn", text=lambda rate: f"{rate:g}/s",
        short=lambda rate: f"{rate:g}/s of connections replaced" if rate else "no churn",
        spoken=lambda rate, _: f"{rate:g}/s of connections new" if rate else "",
        named=lambda cell: f"{cell.churn_per_s:g}churned" if cell.churn_per_s else "",
    ),
    Factor(
        field="streaming", key="streaming", role=CONTEXT, read=Streaming,
        type=one_of("kind of streaming", Streaming), default=Streaming.NONE, ordinary=(Streaming.NONE,),
        protocols=frozenset({Protocol.GRPC}),
        about="Which side of a gRPC call sends many messages. Default: none.",
        columns=_column("streaming", _TEXT, "gRPC: `none`, `client`, `server`, `bidi`", True),
        says_none=True, heading="streaming",
        short=lambda kind: "unary" if kind == Streaming.NONE else f"{kind} streams",
        spoken=lambda kind, _: "" if kind == Streaming.NONE else f"{kind} streams",
        named=lambda cell: (
            f"{cell.streaming}-{cell.messages}" if cell.streaming is not Streaming.NONE else ""
        ),
    ),
    Factor(
        field="messages", key="messages", role=CONTEXT, default=10, neutral=1, ordinary=(1,), numeric=True,
        type=Annotated[int, Field(ge=1, le=100_000)], needs=("streaming", Streaming.NONE),
        about="Messages per stream, where there is streaming. Default: 10.",
        columns=_column("messages", _INT, "messages per gRPC stream; 1 without", True),
        heading="messages", short=lambda count: f"{plural(count, 'message')} per stream",
        spoken=lambda count, _: f"{count:d} messages each",
    ),  # its name stands with that of `streaming`
    Factor(
        field="request_sizes", role=CONTEXT, neutral="", ordinary=("",),
        columns=_column(
            "request_sizes", _TEXT,
            "distribution of requests' sizes, of mean `request_bytes`; empty: one size", True,
        ),
        short=lambda sizes: f"requests {sizes}" if sizes else "",
        spoken=lambda sizes, _: f"requests {sizes}" if sizes else "",
        named=lambda cell: f"up-{cell.request_sizes.replace(' ', '')}" if cell.request_sizes else "",
    ),
    Factor(
        field="response_sizes", role=CONTEXT, neutral="", ordinary=("",),
        columns=_column("response_sizes", _TEXT, "the same of responses", True),
        short=lambda sizes: f"responses {sizes}" if sizes else "",
        spoken=lambda sizes, _: f"responses {sizes}" if sizes else "",
        named=lambda cell: f"down-{cell.response_sizes.replace(' ', '')}" if cell.response_sizes else "",
    ),
    Factor(
        field="rule_kind", key="rules", role=FREE, read=RuleKind, type=one_of("kind of rule", RuleKind),
        default=RuleKind.WHOLE, ordinary=(RuleKind.WHOLE,), concerns=_with_authorization,
        needs=("policy_count", 0),
        about="What the entries of `policies` ask for. Default: whole, as the posture's own entry.",
        columns=_column(
            "rule_kind", _TEXT,
            "what the entries of `policy_count` ask for: `whole` (as the posture's own), `identity`, "
            "`namespace`, `method`, `path`, `path-prefix`, `path-suffix`, `header`, `claim`", True,
        ),
        heading="rules", short=lambda kind: f"by {kind}", spoken=lambda kind, _: f"by {kind}",
        named=lambda cell: f"by-{cell.rule_kind}" if cell.rule_kind is not RuleKind.WHOLE else "",
        alike=True,
    ),
    Factor(
        field="rule_place", key="rules_placed", role=FREE, read=RulePlace,
        type=one_of("place of rules", RulePlace), default=RulePlace.BEFORE, ordinary=(RulePlace.BEFORE,),
        concerns=_with_authorization, needs=("policy_count", 0),
        about="Where they stand: before or after the entry that matches, in a policy that denies, or before "
        "it with all but a header met. Default: before.",
        columns=_column(
            "rule_place", _TEXT,
            "where they stand: `before` or `after` the entry that matches, `deny`: in a policy that denies, "
            "`hit`: before it, and what they ask for is met but for a header",
            True,
        ),
        heading="placed", short=lambda place: _PLACES[place], spoken=lambda place, _: _PLACES[place],
        named=lambda cell: str(cell.rule_place) if cell.rule_place is not RulePlace.BEFORE else "",
        alike=True,
    ),
    *VALIDATION,
    Factor(
        field="traced_share", key="tracing", role=FREE, type=Share, default=0.0, ordinary=(0,), numeric=True,
        protocols=frozenset({Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC}),
        about="Share of the requests that are traced, by proxies and services. Default: 0, nobody traces.",
        columns=_column(
            "traced_share", _NUMBER, "share of the requests that are traced; 0: nobody traces", True
        ),
        says_none=True, heading="tracing", text=lambda share: f"{100 * share:.3g}%",
        short=lambda share: f"{100 * share:.3g}% traced" if share else "no tracing",
        spoken=lambda share, _: f"{100 * share:.3g}% of requests traced" if share else "",
        named=lambda cell: f"{cell.traced_share:g}traced" if cell.traced_share else "",
        growth=SlopeUnit(1, "tracing every request", "/all traced", "share of requests that are traced"),
        stepped=True, alike=True,
    ),
    *FORBIDDEN,
)  # fmt: skip

BY_FIELD: Mapping[str, Factor] = {factor.field: factor for factor in FACTORS}
BY_KEY: Mapping[str, Factor] = {factor.key: factor for factor in FACTORS if factor.key}
"""Those that stand under `factors` of a study file."""
CONTEXT_FIELDS = tuple(factor.field for factor in FACTORS if factor.role is CONTEXT)
ALIKE_FIELDS = tuple(factor.field for factor in FACTORS if factor.alike)
FREE_FIELDS = tuple(factor.field for factor in FACTORS if factor.role is FREE)


def concerns(field: str, posture: Posture) -> bool:
    """Whether the factor (a field of `Cell`) means anything in this posture."""
    return BY_FIELD[field].concerns(posture)
