"""`events` of a study file: keys, types, units. What they mean together: `file.events`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from meshwise.core.units import DURATION_PATTERN, parse_duration_ns
from meshwise.study.file.problems import did_you_mean
from meshwise.study.file.scalars import Duration, Levels, Part, choice, unit
from meshwise.study.security import NO_MESH, POSTURES
from meshwise.study.timeline import (
    Act,
    ChangePosture,
    Declared,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
)

MOST_POLICIES = 1000
_posture, _posture_schema = choice("posture", [name for name in POSTURES if name != NO_MESH.name], str)
_rotated, _rotated_schema = choice("thing to rotate", list(Rotated), Rotated)
_restarted, _restarted_schema = choice("thing to restart", list(Restarted), Restarted)
_failing, _failing_schema = choice("thing that fails", list(Failing), Failing)
_fault, _fault_schema = choice("kind of failure", list(RenewalFault), RenewalFault)
_duration = unit(parse_duration_ns, 3600 * 1e9, "1h")


def _signed_ns(text: object) -> int:
    said = str(text).strip()
    size: int = _duration(said.removeprefix("-"))
    return -size if said.startswith("-") else size


class EventPart(Part):
    """Something that is done in the measured window of every trial, at these times or every so often."""

    at: Levels[Duration] | None = Field(
        default=None, description="One time or several, from the start of the measured window on."
    )
    every: Annotated[Duration, Field(description="From the start of the measured window on.")] | None = None

    @abstractmethod
    def act(self) -> Act:
        """What its keys say is done."""

    def declared(self) -> Declared:
        return Declared(self.act(), tuple(self.at or ()), self.every or 0)


class RotatePart(EventPart):
    """Certificates are replaced while connections are open."""

    rotate: Annotated[
        Rotated,
        _rotated,
        _rotated_schema,
        Field(description="`leaf`: certificates of workloads; `issuer`; `anchor`: what is trusted."),
    ]
    spread: Annotated[
        Duration, Field(description="The pods rotate evenly over this time. Default: all at once.")
    ] = 0
    overlap: Annotated[
        bool,
        Field(description="Of an anchor: both are trusted until all leaves are new. `false` is a fault."),
    ] = True

    def act(self) -> Act:
        return Rotate(self.rotate, self.spread, self.overlap)


class PushPart(EventPart):
    """Policies that no request meets are pushed; again: as many new ones instead of them."""

    push: Literal["policies"]
    count: Annotated[int, Field(ge=1, le=MOST_POLICIES, description="How many.")]
    relevant: Annotated[bool, Field(description="On the workloads that are called. Default: on others.")] = (
        False
    )

    def act(self) -> Act:
        return PushPolicies(self.count, self.relevant)


class PosturePart(EventPart):
    """The posture changes; the next time it changes back, and so on."""

    posture: Annotated[str, _posture, _posture_schema]

    def act(self) -> Act:
        return ChangePosture(POSTURES[self.posture])


class RestartPart(EventPart):
    """A process is ended, and started again at once."""

    restart: Annotated[Restarted, _restarted, _restarted_schema]
    drain: Annotated[bool, Field(description="Ended as its mesh ends it. Default: killed.")] = False
    workload: Annotated[
        str, Field(max_length=63, description="Whose. Default: one after the other, from the entry inwards.")
    ] = ""

    def act(self) -> Act:
        return Restart(self.restart, self.drain, self.workload)


class FailPart(EventPart):
    """Part of the mesh's control fails for a while."""

    fail: Annotated[
        Failing,
        _failing,
        _failing_schema,
        Field(description="`renewal` of certificates, `controller`, or `policy`: its part for policies."),
    ]
    lasts: Duration
    how: Annotated[RenewalFault, _fault, _fault_schema] | None = Field(
        default=None, description="`slow`: it answers late. Default: `refused`; of a controller `gone`."
    )

    def act(self) -> Act:
        usual = RenewalFault.REFUSED if self.fail is Failing.RENEWAL else RenewalFault.GONE
        return Fail(self.fail, self.lasts, self.how or usual)


class SkewPart(EventPart):
    """The clock of the authority that signs certificates is wrong for a while."""

    skew: Annotated[
        int,
        BeforeValidator(_signed_ns),
        WithJsonSchema({"type": "string", "pattern": f"^-?{DURATION_PATTERN}$", "examples": ["1h", "-10m"]}),
        Field(description="Ahead by so much; `-10m`: behind."),
    ]
    lasts: Duration

    def act(self) -> Act:
        return Skew(self.skew, self.lasts)


EVENT_PARTS: Mapping[str, type[EventPart]] = {
    "rotate": RotatePart,
    "push": PushPart,
    "posture": PosturePart,
    "restart": RestartPart,
    "fail": FailPart,
    "skew": SkewPart,
}
"""By the key that says what is done."""


def tag_of(verb: str) -> str:
    """How pydantic names the kind of an entry in the place of a mistake; no key of a file looks like it."""
    return f"<{verb}>"


def _verbs(value: Any) -> list[str]:
    """What an entry says is done."""
    if isinstance(value, EventPart):
        return [verb for verb, part in EVENT_PARTS.items() if isinstance(value, part)]
    return [verb for verb in EVENT_PARTS if isinstance(value, Mapping) and verb in value]


def _says_one_thing(value: Any) -> Any:
    verbs = _verbs(value)
    if len(verbs) != 1:
        known = ", ".join(f"`{verb}`" for verb in EVENT_PARTS)
        what = f"this event says {len(verbs)} things" if verbs else "this event does not say what is done"
        said = [str(key) for key in value] if isinstance(value, Mapping) and not verbs else []
        what += next(filter(None, (did_you_mean(key, EVENT_PARTS) for key in said)), "")
        remedy = f"one of {known} in each entry, like `{{rotate: leaf, every: 5s}}`"
        raise PydanticCustomError("reason", "{what}", {"what": what, "remedy": remedy})
    return value


Event = Annotated[
    Annotated[RotatePart, Tag("<rotate>")]
    | Annotated[PushPart, Tag("<push>")]
    | Annotated[PosturePart, Tag("<posture>")]
    | Annotated[RestartPart, Tag("<restart>")]
    | Annotated[FailPart, Tag("<fail>")]
    | Annotated[SkewPart, Tag("<skew>")],
    Discriminator(lambda value: tag_of(_verbs(value)[0])),
    BeforeValidator(_says_one_thing),
]
