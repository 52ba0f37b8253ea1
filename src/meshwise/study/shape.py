"""The shape of a study file: keys, types, units, bounds, defaults. One source for checking and for the
JSON Schema (`study.schema`). What keys mean together is `study.expand`'s.

Input is `study.document`'s: every scalar is text. Error types made here (`unit`, `level`, `reason`) carry
what `study.file` needs to say them in the catalogue's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from meshwise.core.errors import MeshwiseError
from meshwise.core.units import parse_duration_ns, parse_rate_rps, parse_share, parse_size_bytes
from meshwise.study.factors import LADDER_NAMES, POSTURES, did_you_mean
from meshwise.study.model import (
    Arrivals,
    Authorization,
    Http1Transport,
    KeyType,
    MeshName,
    MtlsMode,
    Protocol,
    Shape,
    TlsGroup,
)

T = TypeVar("T")

METRICS = (
    "response_p50_us", "response_p90_us", "response_p99_us", "response_p999_us", "response_mean_us",
    "service_p50_us", "service_p90_us", "service_p99_us", "service_p999_us", "service_mean_us",
    "cpu_us_per_request", "memory_bytes", "throughput_rps", "error_ratio",
    "saturation_rps", "saturation_down_rps", "requests_per_cpu_s",
)  # fmt: skip
"""What a study may name as primary: the metrics of `findings.json`."""


def _unit(parse: Callable[[str], Any], at_most: float, most: str) -> Callable[[object], Any]:
    def validate(text: object) -> Any:
        try:
            value = parse(str(text))
        except MeshwiseError as error:
            raise PydanticCustomError(
                "unit", "{what}", {"what": error.what, "remedy": error.remedy}
            ) from None
        if value > at_most:
            context = {"what": f"`{text}` is too much", "remedy": f"the most is {most}"}
            raise PydanticCustomError("unit", "{what}", context)
        return value

    return validate


def _rate(text: str) -> float:
    if re.fullmatch(r"\s*0+(\.0*)?\s*/\s*[smh]\s*", text):
        raise PydanticCustomError(
            "reason",
            "{what}",
            {"what": "a rate of 0 sends nothing", "remedy": "give a rate above 0, like `800/s`"},
        )
    return parse_rate_rps(text)


def _quantity(pattern: str, examples: list[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": examples})


def _choice(
    kind: str, known: Iterable[str], make: Callable[[str], Any]
) -> tuple[BeforeValidator, WithJsonSchema]:
    names = list(known)

    def validate(text: object) -> Any:
        if text not in names:
            context = {
                "text": str(text), "kind": kind, "known": ", ".join(f"`{name}`" for name in names),
                "meant": did_you_mean(str(text), names),
            }  # fmt: skip
            raise PydanticCustomError("level", "`{text}` is not a {kind}", context)
        return make(str(text))

    return BeforeValidator(validate), WithJsonSchema({"type": "string", "enum": names})


class _OneOrMany:
    """A factor is one level or a list of levels; inside it is always a list."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        many = handler(core)
        return {"anyOf": [many["items"], many]}


Levels = Annotated[
    list[T],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1, max_length=64),
    _OneOrMany(),
]

Duration = Annotated[
    int,
    BeforeValidator(_unit(parse_duration_ns, 3600 * 1e9, "1h")),
    _quantity(r"^[0-9.]+ *(ns|us|µs|ms|s|m|h)$", ["3s", "250ms"]),
]
Size = Annotated[
    int,
    BeforeValidator(_unit(parse_size_bytes, 16 * 2**20, "16MiB")),
    _quantity(r"^[0-9.]+ *(B|KB|MB|KiB|MiB|GiB)$", ["512B", "1KiB"]),
]
Rate = Annotated[
    float,
    BeforeValidator(_unit(_rate, 200_000, "200000/s")),
    _quantity(r"^[0-9.]+ */ *(s|m|h)$", ["800/s"]),
]
Share = Annotated[
    float,
    BeforeValidator(_unit(parse_share, 1, "100%")),
    WithJsonSchema({"type": ["string", "number"], "examples": ["10%", 0.1]}),
]
_mesh, _mesh_schema = _choice("environment", list(MeshName), MeshName)
_protocol, _protocol_schema = _choice("protocol", list(Protocol), Protocol)
_posture, _posture_schema = _choice("posture", list(dict.fromkeys(("ladder", *LADDER_NAMES, *POSTURES))), str)
_mtls, _mtls_schema = _choice("mTLS mode", list(MtlsMode), MtlsMode)
_kind, _kind_schema = _choice("kind of authorization", list(Authorization), Authorization)
_key, _key_schema = _choice("key type", list(KeyType), KeyType)
_transport, _transport_schema = _choice("HTTP/1.1 transport", list(Http1Transport), Http1Transport)
_group, _group_schema = _choice("TLS group", list(TlsGroup), TlsGroup)
_shape, _shape_schema = _choice("topology", list(Shape), Shape)
_arrivals, _arrivals_schema = _choice("kind of arrivals", list(Arrivals), Arrivals)
_metric, _metric_schema = _choice("metric", METRICS, str)
Environment = Annotated[MeshName, _mesh, _mesh_schema]
PostureName = Annotated[str, _posture, _posture_schema]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Features(_Part):
    """Postures by their features: every combination of the two lists."""

    mtls: Annotated[Levels[Annotated[MtlsMode, _mtls, _mtls_schema]], Field(description="mTLS modes.")]
    authorization: Annotated[
        Levels[Annotated[Authorization, _kind, _kind_schema]], Field(description="Kinds of authorization.")
    ]


class Factors(_Part):
    """What varies: one level or a list of levels each. A cell is one combination."""

    posture: Levels[PostureName] | None = Field(default=None, description="Names, or `ladder` for all of it.")
    features: Features | None = Field(default=None, description="Postures by features, instead of `posture`.")
    protocol: Levels[Annotated[Protocol, _protocol, _protocol_schema]] | None = Field(
        default=None, description="Default: http1."
    )
    rate: Levels[Rate] | None = Field(default=None, description="Requests per second. Default: 500/s.")
    request: Levels[Size] | None = Field(default=None, description="Payload of a request. Default: 128B.")
    response: Levels[Size] | None = Field(default=None, description="Payload of a response. Default: 1KiB.")
    connections: Levels[Annotated[int, Field(ge=1, le=1024)]] | None = Field(
        default=None, description="Connections of the instrument. Default: 16."
    )
    streams: Levels[Annotated[int, Field(ge=1, le=1000)]] | None = Field(
        default=None, description="Concurrent streams per connection; http1 and tcp have one. Default: 1."
    )
    length: Levels[Annotated[int, Field(ge=1, le=16)]] | None = Field(
        default=None, description="Nodes in the chain, or leaves of the fan-out. Default: 1."
    )
    key: Levels[Annotated[KeyType, _key, _key_schema]] | None = Field(
        default=None, description="Key of the certificates. Default: what each mesh issues by default."
    )
    policies: Levels[Annotated[int, Field(ge=0, le=10_000)]] | None = Field(
        default=None,
        description="Authorization entries scanned before the one that matches. Default: 0.",
    )
    plaintext_share: Levels[Share] | None = Field(
        default=None, description="Share of the load from outside the mesh, in `permissive`. Default: 0."
    )
    http1_transport: Levels[Annotated[Http1Transport, _transport, _transport_schema]] | None = Field(
        default=None,
        description="How HTTP/1.1 travels between sidecars. Default: as each mesh does it unasked.",
    )
    tls_group: Levels[Annotated[TlsGroup, _group, _group_schema]] | None = Field(
        default=None,
        description="Group of the TLS key exchange between sidecars. Default: what each mesh uses unasked.",
    )


class Match(Factors):
    """Cells that have these levels; what is not named matches any."""

    environment: Levels[Environment] | None = Field(default=None, description="Default: any.")


class SubGrid(Match):
    """A part of the study's grid: levels here replace those of `factors`."""


class Load(_Part):
    """How requests are sent."""

    arrivals: Annotated[Arrivals, _arrivals, _arrivals_schema] = Arrivals.CONSTANT
    timeout: Annotated[Duration, Field(description="An unanswered request is an error after this.")] = (
        2 * 10**9
    )


class TrialShape(_Part):
    """How long a trial is."""

    warmup: Annotated[Duration, Field(description="Sent but not counted.")] = 10**9
    duration: Duration = 3 * 10**9


def _words_to_matches(value: object) -> object:
    """`all` is the match that matches everything, `none` is no match."""
    return {"all": [{}], "none": []}.get(value, value) if isinstance(value, str) else value


class _AllNoneOrMany:
    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "enum": ["all", "none"]}, handler(core)]}


Matches = Annotated[list[Match], BeforeValidator(_words_to_matches), Field(max_length=256), _AllNoneOrMany()]


class ControlShape(_Part):
    """The A/A control in each block. Left out: chosen by meshwise, and shown by `plan`."""

    same: Matches | None = Field(
        default=None,
        description="Cells that run twice on the same processes. Default: the lightest and the heaviest.",
    )
    twin: Matches | None = Field(
        default=None,
        description="Cells that run on a twin set of processes too. Default: one of each mesh.",
    )


class ObjectiveShape(_Part):
    """What a rate must hold for a whole trial, in a study of `kind: saturation`."""

    p50: Duration | None = Field(default=None, description="Most response time at the median.")
    p90: Duration | None = None
    p99: Duration | None = None
    p999: Duration | None = None
    errors: Annotated[Share, Field(description="Most failed requests.")] = 0.001
    completed: Annotated[Share, Field(description="Least share answered within the window.")] = 0.99


class SearchShape(_Part):
    """How the highest rate that holds the objective is searched for."""

    start: Annotated[Rate, Field(description="The first rate that is tried.")] = 200.0
    limit: Annotated[Rate, Field(description="No rate above it is tried.")] = 20_000.0
    confirm: Annotated[int, Field(ge=1, le=5, description="Equal results that settle a rate.")] = 2
    steps: Annotated[int, Field(ge=8, le=200, description="Most trials of a search.")] = 40
    idle: Annotated[Duration, Field(description="Rest before each trial.")] = 500_000_000
    descend: Annotated[bool, Field(description="Come down from overload again (hysteresis).")] = False


class StudyFile(_Part):
    """A meshwise study."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Lower case, `-` and `_`.")]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1, description="Decides the random order.")] = 1
    kind: Annotated[Literal["steady", "saturation"], Field(description="`saturation`: search the rate.")] = (
        "steady"
    )
    environments: Annotated[Levels[Environment], Field(description="The meshes that are compared.")]
    topology: Annotated[Shape, _shape, _shape_schema] = Shape.CHAIN
    factors: Factors = Factors()
    include: Annotated[list[SubGrid], Field(max_length=64)] | None = Field(
        default=None,
        description="Parts of the grid; the study is their union. Default: `factors` alone.",
    )
    exclude: Annotated[list[Match], Field(max_length=64)] = Field([], description="Cells to leave out.")
    load: Load = Load()
    trial: TrialShape = TrialShape()
    blocks: Annotated[int, Field(ge=2, le=1000, description="Passes over all cells; 8 or more.")] = 8
    executions: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Lives of the processes, a divisor of `blocks`. Default: one per block."
    )
    control: ControlShape = ControlShape()
    objective: ObjectiveShape | None = None
    search: SearchShape | None = None
    workers: Annotated[int, Field(ge=1, le=64, description="Worker threads of each proxy.")] = 2
    pin: Annotated[bool, Field(description="Pin pods and instrument to CPUs.")] = False
    outliers: Annotated[
        str, Field(pattern=r"^(none|cause|hampel [0-9]+(\.[0-9]+)?)$", examples=["none", "cause", "hampel 5"])
    ] = "none"
    primary: Annotated[
        Levels[Annotated[str, _metric, _metric_schema]],
        Field(description="Metrics that the verdicts are about."),
    ] = ["response_p50_us", "cpu_us_per_request"]
    confidence: Share = 0.95
    margin: Annotated[
        Share | None,
        Field(description="A change within it does not matter: allows the verdict `equivalent`."),
    ] = None
