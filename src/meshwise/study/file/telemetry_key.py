"""The key `telemetry` of a study file: how often telemetry is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwise.study.file.problems import Problem, impossible
from meshwise.study.file.scalars import Duration, Part, choice
from meshwise.study.sampling import Sampling, SamplingKind

_USUAL = Sampling()
_kind, _kind_schema = choice("way of sampling", list(SamplingKind), SamplingKind)
LEAST_NS = 10**6
LEAST_INTERVAL_NS = 50 * 10**6
"""Of what is read from proxies too, each of which pays about 1.2 ms of CPU for telling its statistics."""


class TelemetryPart(Part):
    """How often telemetry is read."""

    sampling: Annotated[
        SamplingKind,
        _kind,
        _kind_schema,
        Field(description="`fast` between the steady readings: always, or (`adaptive`) when it matters."),
    ] = _USUAL.kind
    interval: Annotated[Duration, Field(description="Between readings of everything. Default: 1s.")] = (
        _USUAL.interval_ns
    )
    fast: Annotated[Duration, Field(description="Between fast readings. Default: 10ms.")] = _USUAL.fast_ns


def sampling_of(part: TelemetryPart | None, problems: list[Problem]) -> Sampling:
    if part is None:
        return _USUAL
    if part.interval < LEAST_INTERVAL_NS:
        reason = "each reading costs a proxy about 1.2 ms of CPU, so they are at least 50ms apart"
        remedy = "a longer `interval`; `fast` is for what costs proxies nothing"
        problems.append(impossible(("telemetry", "interval"), reason, remedy))
    if part.sampling is not SamplingKind.SLOW and not LEAST_NS <= part.fast < part.interval:
        reason = "fast readings are at least 1ms apart, and less than `interval`"
        problems.append(impossible(("telemetry", "fast"), reason, "usual: `fast: 10ms`, `interval: 1s`"))
    return Sampling(part.sampling, part.interval, part.fast)
