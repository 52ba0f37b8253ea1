"""How load moves within a trial, as data. The rate over time that it means is `study.load.rate`'s.

Rules of this file:
- A level is a multiple of the cell's rate, so that `rate` stays a factor and one shape serves every cell.
- What chance decides of a shape (the states of `markov`) is decided by a seed in it and so is the same in
  every trial of a study: the question stays one. Only the arrivals within the shape are drawn per block.
- The shape fills the measured window; the warm-up before it is steady at the cell's rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from meshwise.core.units import format_duration

MOST_RPS = 200_000.0
"""Beyond it no rate is accepted: about what one core of the instrument sends over HTTP/1.1."""


@dataclass(frozen=True)
class Steps:
    """One level after another, all equally long."""

    levels: tuple[float, ...]

    @property
    def words(self) -> str:
        return f"steps of {', '.join(f'{level:g}x' for level in self.levels)}"


@dataclass(frozen=True)
class Ramp:
    """From one level to another in a straight line."""

    start: float
    end: float

    @property
    def words(self) -> str:
        return f"a ramp from {self.start:g}x to {self.end:g}x"


@dataclass(frozen=True)
class Sinusoid:
    """1 - swing * cos(2 pi t / period): around the cell's rate, lowest at the start, like a day."""

    swing: float
    period_ns: int

    @property
    def words(self) -> str:
        return f"a sinusoid of ±{100 * self.swing:g} % every {format_duration(self.period_ns)}"


@dataclass(frozen=True)
class OnOff:
    """`high` for `on_ns`, `low` for `off_ns`, again and again."""

    on_ns: int
    off_ns: int
    high: float
    low: float

    @property
    def words(self) -> str:
        on, off = format_duration(self.on_ns), format_duration(self.off_ns)
        return f"on {on} at {self.high:g}x, off {off} at {self.low:g}x"


@dataclass(frozen=True)
class Spike:
    """`height` from `at_ns` on for `lasts_ns`, 1 before and after."""

    at_ns: int
    lasts_ns: int
    height: float

    @property
    def words(self) -> str:
        at, lasts = format_duration(self.at_ns), format_duration(self.lasts_ns)
        return f"a spike of {self.height:g}x at {at} for {lasts}"


@dataclass(frozen=True)
class Markov:
    """States of exponentially distributed length; then any other state, each with the same chance. Begins in
    the first. With Poisson arrivals inside this is a Markov-modulated Poisson process."""

    levels: tuple[float, ...]
    stays_ns: tuple[int, ...]
    """Mean length of each state."""
    seed: int

    @property
    def words(self) -> str:
        states = (
            f"{level:g}x for {format_duration(stay)}"
            for level, stay in zip(self.levels, self.stays_ns, strict=True)
        )
        return f"random states ({', '.join(states)} on average)"


@dataclass(frozen=True)
class IdleBurst:
    """Nothing for `idle_ns`, then as long at the cell's rate as makes `requests`, again and again."""

    idle_ns: int
    requests: float

    @property
    def words(self) -> str:
        return f"idle {format_duration(self.idle_ns)}, then a burst of {self.requests:g} requests"


@dataclass(frozen=True)
class Rates:
    """Intervals of a trace of rates: each level holds from its start to the next. The last of them is 0 where
    the trace ends before the trial does."""

    starts_ns: tuple[int, ...] = field(repr=False)
    levels: tuple[float, ...] = field(repr=False)

    @property
    def words(self) -> str:
        return f"the rates of a trace ({len(self.starts_ns)} intervals)"


TENTH_NS = 100_000_000


@dataclass(frozen=True)
class Times:
    """What a trace of times holds for the measured window; the times themselves stay in its file."""

    count: int
    per_tenth: tuple[int, ...] = field(repr=False)
    """Requests in every tenth of a second."""

    @property
    def words(self) -> str:
        return f"the {self.count} times of a trace"


@dataclass(frozen=True)
class TraceForm:
    """How a trace is read that is not meshwise's own `time_s` or `time_s,rate_rps`. All at their defaults: as
    its own heading says."""

    column: str | None = None
    """Of the time of each request: its heading, or its number from 1."""
    unit: str | None = None
    """One of `TRACE_UNITS`; None: what the heading ends with (`_ms`), or a date where it is one."""
    sort: bool = False
    """Take the rows in the order of their times; else disorder is a mistake."""


OWN_FORM = TraceForm()
TRACE_UNITS = ("s", "ms", "us", "ns", "date")


@dataclass(frozen=True)
class TraceFile:
    """The file behind `Rates` or `Times`."""

    name: str
    """As the study says it."""
    path: str = field(compare=False)
    sha256: str
    notes: tuple[str, ...] = ()
    """What a reader of the plan should know: gaps, a part that is not replayed."""
    form: TraceForm = OWN_FORM


_PARTS: dict[str, type[Any]] = {
    "steps": Steps, "ramp": Ramp, "sinusoid": Sinusoid, "on_off": OnOff, "spike": Spike, "markov": Markov,
    "idle_burst": IdleBurst, "rates": Rates,
}  # fmt: skip


@dataclass(frozen=True)
class LoadProfile:
    """Parts beside each other multiply: a spike on a sinusoid is higher at noon."""

    steps: Steps | None = None
    ramp: Ramp | None = None
    sinusoid: Sinusoid | None = None
    on_off: OnOff | None = None
    spike: Spike | None = None
    markov: Markov | None = None
    idle_burst: IdleBurst | None = None
    rates: Rates | None = None
    times: Times | None = None
    trace: TraceFile | None = None

    @property
    def words(self) -> str:
        """`a sinusoid of ±80 % every 24s, times a spike of 3x at 12s for 1s`."""
        parts = [getattr(self, each.name) for each in fields(self) if each.name != "trace"]
        described = ", times ".join(part.words for part in parts if part is not None)
        return f"{described}, {self.trace.name}" if self.trace else described

    def shared(self, share: float) -> LoadProfile:
        """The shape of a client who sends this share of the load, or of one who sends that of several."""
        if self.idle_burst is None:
            return self
        own = replace(self.idle_burst, requests=self.idle_burst.requests * share)
        return replace(self, idle_burst=own)

    def to_values(self) -> dict[str, Any]:
        """As plain values, without what only a study knows (`times`, `trace`)."""
        parts = {name: getattr(self, name) for name in _PARTS}
        return {name: vars(part).copy() for name, part in parts.items() if part is not None}

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> LoadProfile:
        """The inverse of `to_values`. Raises KeyError or TypeError for what is none."""
        return cls(
            **{
                name: _PARTS[name](
                    **{key: tuple(each) if isinstance(each, list) else each for key, each in part.items()}
                )
                for name, part in values.items()
            }
        )


@dataclass(frozen=True)
class Think:
    """What a closed loop waits after an answer, per connection (or stream), before its next request."""

    mean_ns: int
    exponential: bool = False
    """Else always the same."""

    @property
    def words(self) -> str:
        return f"{'exponential ' if self.exponential else ''}{format_duration(self.mean_ns)}"
