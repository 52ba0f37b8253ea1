"""`load: shape` and `load: think` of a study file: keys, types, units. What they mean: `file.movement`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from meshwise.core.errors import MeshwiseError
from meshwise.core.units import DURATION_PATTERN, parse_duration_ns
from meshwise.study.file.scalars import Duration, Multiple, Part, Share
from meshwise.study.load.profile import Think


def parse_think(text: str) -> Think:
    """`100ms` or `exponential 100ms`. Raises MW101."""
    kind, _, rest = text.strip().partition(" ")
    exponential = kind == "exponential"
    return Think(parse_duration_ns(rest if exponential else text), exponential)


def _think(text: object) -> Think:
    try:
        return parse_think(str(text))
    except MeshwiseError as error:
        context = {"what": f"`{text}` is not a think time", "remedy": "`100ms`, or `exponential 100ms`"}
        raise PydanticCustomError("unit", "{what}", context) from error


ThinkTime = Annotated[
    Think,
    BeforeValidator(_think),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^(exponential )?{DURATION_PATTERN}$",
            "examples": ["100ms", "exponential 100ms"],
        }
    ),
]


class StepsPart(Part):
    """One level after another, all equally long."""

    levels: Annotated[list[Multiple], Field(min_length=2, max_length=100)]


class RampPart(Part):
    """In a straight line over the whole trial."""

    start: Multiple
    end: Multiple


class SinusoidPart(Part):
    """Around the rate, lowest at the start: a compressed day."""

    swing: Annotated[Share, Field(description="Up and down by this share of the rate.")]
    period: Annotated[Duration, Field(description="Default: the trial's duration.")] | None = None


class OnOffPart(Part):
    """Bursts of equal length."""

    on: Duration
    off: Duration
    high: Annotated[Multiple, Field(description="Level of the bursts.")] = 1.0
    low: Annotated[Multiple, Field(description="Level between them.")] = 0.0


class SpikePart(Part):
    """Higher once."""

    at: Annotated[Duration, Field(description="From the end of the warm-up.")]
    lasts: Duration
    height: Multiple


class StatePart(Part):
    """One state of a Markov chain."""

    level: Multiple
    stays: Annotated[Duration, Field(description="Mean; the length is exponentially distributed.")]


class MarkovPart(Part):
    """Random states: with poisson arrivals a Markov-modulated Poisson process."""

    states: Annotated[list[StatePart], Field(min_length=2, max_length=16)]


class IdleBurstPart(Part):
    """Nothing for a while, then so many requests at the cell's rate, again and again."""

    idle: Duration
    burst: Annotated[int, Field(ge=1, le=1_000_000, description="Requests.")]


class TracePart(Part):
    """A recorded load."""

    file: Annotated[str, Field(min_length=1, description="Path from the study file.")]
    time_column: Annotated[str, Field(min_length=1, description="Heading or number of the times.")] | None = (
        None
    )
    unit: (
        Annotated[
            Literal["s", "ms", "us", "ns", "date"],
            Field(description="Default: as the heading ends, or a date."),
        ]
        | None
    ) = None
    sort: Annotated[bool, Field(description="Take the rows in the order of their times.")] = False


class _PathAlone:
    """The path alone serves as well."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(core)]}


def _trace(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


class MovingLoad(Part):
    """How the rate moves within a trial. Shapes beside each other multiply; `idle_burst` and `trace` stand
    alone, and so does one of `ramp` and `sinusoid`."""

    steps: StepsPart | None = None
    ramp: RampPart | None = None
    sinusoid: SinusoidPart | None = None
    on_off: OnOffPart | None = None
    spike: SpikePart | None = None
    markov: MarkovPart | None = None
    idle_burst: IdleBurstPart | None = None
    trace: (
        Annotated[
            TracePart,
            BeforeValidator(_trace),
            _PathAlone(),
            Field(description="A file of times or of rates, or `{file:, time_column:, unit:, sort:}`."),
        ]
        | None
    ) = None
