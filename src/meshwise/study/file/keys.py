"""The shape of a study file: keys, types, units, bounds, defaults. One source for checking and for the
JSON Schema (`study.file.schema`). What keys mean together is `study.grid.expand`'s.

Input is `study.file.document`'s: every scalar is text (types of `study.file.scalars`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema, create_model
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from meshwise.study.factors import BY_KEY
from meshwise.study.file.bank_keys import MixPart
from meshwise.study.file.count_keys import CountPart
from meshwise.study.file.event_keys import Event
from meshwise.study.file.load_keys import MovingLoad, ThinkTime
from meshwise.study.file.scalars import Duration, Levels, Part, Rate, Share, choice
from meshwise.study.file.telemetry_key import TelemetryPart
from meshwise.study.file.topology_key import GraphChoice, graph_choice, graph_choice_schema
from meshwise.study.model import (
    Arrangement,
    Arrivals,
    Authorization,
    ControlPlane,
    MeshName,
    MtlsMode,
    TopologyKind,
)
from meshwise.study.security import LADDER_NAMES, POSTURES

METRICS = (
    "response_p50_us", "response_p90_us", "response_p99_us", "response_p999_us", "response_mean_us",
    "service_p50_us", "service_p90_us", "service_p99_us", "service_p999_us", "service_mean_us",
    "cpu_us_per_request", "memory_bytes", "throughput_rps", "error_ratio",
    "saturation_rps", "saturation_down_rps", "requests_per_cpu_s",
)  # fmt: skip
"""What a study may name as primary: the metrics of `findings.json`."""


_mesh, _mesh_schema = choice("environment", list(MeshName), MeshName)
_posture, _posture_schema = choice("posture", list(dict.fromkeys(("ladder", *LADDER_NAMES, *POSTURES))), str)
_mtls, _mtls_schema = choice("mTLS mode", list(MtlsMode), MtlsMode)
_kind, _kind_schema = choice("kind of authorization", list(Authorization), Authorization)
_arrivals, _arrivals_schema = choice("kind of arrivals", list(Arrivals), Arrivals)
_plane, _plane_schema = choice("control plane", list(ControlPlane), ControlPlane)
_metric, _metric_schema = choice("metric", METRICS, str)
Environment = Annotated[MeshName, _mesh, _mesh_schema]
PostureName = Annotated[str, _posture, _posture_schema]


class Features(Part):
    """Postures by their features: every combination of the two lists."""

    mtls: Annotated[Levels[Annotated[MtlsMode, _mtls, _mtls_schema]], Field(description="mTLS modes.")]
    authorization: Annotated[
        Levels[Annotated[Authorization, _kind, _kind_schema]], Field(description="Kinds of authorization.")
    ]


class Postures(Part):
    """What varies: one level or a list of levels each. A cell is one combination."""

    posture: Levels[PostureName] | None = Field(default=None, description="Names, or `ladder` for all of it.")
    features: Features | None = Field(default=None, description="Postures by features, instead of `posture`.")


if TYPE_CHECKING:

    class Factors(Postures):
        """With a key for every factor of the table; `levels_said` reads them."""

else:
    Factors = create_model(
        "Factors",
        __base__=Postures,
        __doc__=Postures.__doc__,
        **{
            key: (Levels[factor.type] | None, Field(default=None, description=factor.about))
            for key, factor in BY_KEY.items()
        },
    )


def levels_said(part: Factors, key: str) -> list[Any] | None:
    """The levels of a factor in one part of the file; None where it says none."""
    found: list[Any] | None = getattr(part, key)
    return found


class Match(Factors):
    """Cells that have these levels; what is not named matches any."""

    environment: Levels[Environment] | None = Field(default=None, description="Default: any.")


class SubGrid(Match):
    """A part of the study's grid: levels here replace those of `factors`."""


class Load(Part):
    """How requests are sent."""

    arrivals: Annotated[Arrivals, _arrivals, _arrivals_schema] = Arrivals.CONSTANT
    timeout: Annotated[Duration, Field(description="An unanswered request is an error after this.")] = (
        2 * 10**9
    )
    shape: MovingLoad | None = Field(
        default=None, description="How the rate moves within a trial. Default: not at all."
    )
    think: ThinkTime | None = Field(
        default=None, description="What a closed loop waits after an answer before its next request."
    )
    mix: MixPart | None = Field(
        default=None, description="What clients of the bank ask for. Default: 50, 30, 10, 10 in this order."
    )


class TrialPart(Part):
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


class ControlPart(Part):
    """The A/A control in each block. Left out: chosen by meshwise, and shown by `plan`."""

    same: Matches | None = Field(
        default=None,
        description="Cells that run twice on the same processes. Default: the lightest and the heaviest.",
    )
    twin: Matches | None = Field(
        default=None,
        description="Cells that run on a twin set of processes too. Default: one of each mesh.",
    )
    halves: Matches | None = Field(
        default=None,
        description="Of a study together: arms whose requests the analysis divides in two at random, for the "
        "noise of time alone. Default: none.",
    )


class ObjectivePart(Part):
    """What a rate must hold for a whole trial, in a study of `kind: saturation`."""

    p50: Duration | None = Field(default=None, description="Most response time at the median.")
    p90: Duration | None = None
    p99: Duration | None = None
    p999: Duration | None = None
    errors: Annotated[Share, Field(description="Most failed requests.")] = 0.001
    completed: Annotated[Share, Field(description="Least share answered within the window.")] = 0.99


class SearchPart(Part):
    """How the highest rate that holds the objective is searched for."""

    start: Annotated[Rate, Field(description="The first rate that is tried.")] = 200.0
    limit: Annotated[Rate, Field(description="No rate above it is tried.")] = 20_000.0
    confirm: Annotated[int, Field(ge=1, le=5, description="Equal results that settle a rate.")] = 2
    steps: Annotated[int, Field(ge=8, le=200, description="Most trials of a search.")] = 40
    idle: Annotated[Duration, Field(description="Rest before each trial.")] = 500_000_000
    descend: Annotated[bool, Field(description="Come down from overload again (hysteresis).")] = False
    soak: Annotated[Duration, Field(description="A long trial below the rate found. Default: none.")] = 0
    soak_share: Annotated[Share, Field(description="Its rate, of the rate found.")] = 0.8


class StudyFile(Part):
    """A meshwise study."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Lower case, `-` and `_`.")]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1, description="Decides the random order.")] = 1
    kind: Annotated[Literal["steady", "saturation"], Field(description="`saturation`: search the rate.")] = (
        "steady"
    )
    environments: Annotated[Levels[Environment], Field(description="The meshes that are compared.")]
    control_plane: Annotated[
        ControlPlane,
        _plane,
        _plane_schema,
        Field(
            description="Who generates the configuration of Istio's sidecars: meshwise, or the real istiod."
        ),
    ] = ControlPlane.MESHWISE
    topology: Annotated[
        TopologyKind | GraphChoice, PlainValidator(graph_choice), WithJsonSchema(graph_choice_schema())
    ] = TopologyKind.CHAIN
    factors: Factors = Factors()
    include: Annotated[list[SubGrid], Field(max_length=64)] | None = Field(
        default=None,
        description="Parts of the grid; the study is their union. Default: `factors` alone.",
    )
    exclude: Annotated[list[Match], Field(max_length=64)] = Field([], description="Cells to leave out.")
    load: Load = Load()
    trial: TrialPart = TrialPart()
    blocks: Annotated[int, Field(ge=2, le=1000, description="Passes over all cells; 8 or more.")] = 8
    executions: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Lives of the processes, a divisor of `blocks`. Default: one per block."
    )
    events: Annotated[list[Event], Field(max_length=64)] = Field(
        [], description="What is done in the measured window of trials, and when. Default: nothing."
    )
    arrangement: Annotated[
        Arrangement | None,
        Field(
            description="`together`: cells of the same traffic run at the same time, each on its own "
            "processes, so that what the machine does meets them all; "
            "`apart`: one at a time. Default: together, for steady load."
        ),
    ] = None
    alone: Annotated[int, Field(ge=0, le=64)] | None = Field(
        default=None,
        description="Of a study together: so many cells of every block also run alone, in turns, for their "
        "levels without company. Default: enough for one cell of each traffic. 0: none.",
    )
    control: ControlPart = ControlPart()
    objective: ObjectivePart | None = None
    search: SearchPart | None = None
    count: CountPart | None = Field(
        default=None, description="Count instructions and system calls too. Default: not."
    )
    profile: Annotated[
        bool, Field(description="One more trial of each cell, under profilers, which is never timed.")
    ] = False
    telemetry: TelemetryPart | None = Field(
        default=None, description="How often telemetry is read. Default: everything each second."
    )
    workers: Annotated[int, Field(ge=1, le=64, description="Worker threads of each proxy.")] = 2
    pin: Annotated[bool, Field(description="Pin pods and instrument to CPUs.")] = False
    outliers: Annotated[
        str, Field(pattern=r"^(none|cause|hampel [0-9]+(\.[0-9]+)?)$", examples=["none", "cause", "hampel 5"])
    ] = "none"
    primary: Levels[Annotated[str, _metric, _metric_schema]] = Field(
        ["response_p50_us", "cpu_us_per_request"], description="Metrics that the verdicts are about."
    )
    confidence: Share = 0.95
    margin: Annotated[
        Share | None,
        Field(description="A change within it does not matter: allows the verdict `equivalent`."),
    ] = None

    @property
    def shape(self) -> TopologyKind:
        """The kind of topology; `graph` for one that is given."""
        return TopologyKind.GRAPH if isinstance(self.topology, GraphChoice) else self.topology
