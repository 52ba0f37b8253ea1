"""What is read of a round's processes between the steady readings, and when that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from meshwise.study.sampling import Sampling, SamplingKind
from meshwise.study.timeline import Timeline, lasts_ns
from meshwise.telemetry.brisk import Brisk, Span
from meshwise.telemetry.record import Window
from meshwise.telemetry.seam import Sampler
from meshwise.telemetry.watch import ChangeWatch, LiveResponses

BEFORE_NS, AFTER_NS = 250 * 10**6, 500 * 10**6
"""Around what is done to a trial, fast readings are kept; longer where it is noticed that something still
changes."""


def brisk(
    sampling: Sampling, clocks: Sampler, records: Path, window: Window, timeline: Timeline
) -> Brisk | None:
    """None where nothing is read between. `records`: directory of the instrument, whose answers are watched;
    `timeline`: what is done to the trial."""
    if sampling.kind is SamplingKind.SLOW:
        return None
    if sampling.kind is SamplingKind.FAST:
        return Brisk((clocks,), sampling.fast_ns, always=True)
    return Brisk(
        (clocks,),
        sampling.fast_ns,
        spans=spans(window, timeline),
        changed=ChangeWatch(LiveResponses(records)).see,
    )


def spans(window: Window, timeline: Timeline) -> Sequence[Span]:
    """Of what goes on for a while: around all of it."""
    return [
        Span(begin_ns - BEFORE_NS, begin_ns + lasts_ns(each.act) + AFTER_NS)
        for each in timeline.occurrences(window.t1_ns - window.t0_ns)
        for begin_ns in [window.t0_ns + each.intended_ns]
    ]
