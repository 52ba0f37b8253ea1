"""The whole schedule of a run, warm-up included: steady, shaped, or replayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from meshwise.load.schedule import Times, arrival_times_ns, replayed_times_ns, shaped_times_ns
from meshwise.load.spec import LoadSpec
from meshwise.load.trace import open_trace


def intended_times(spec: LoadSpec) -> Times:
    """Ascending, from the run's start. Raises ValueError for a closed loop, MW314 for a broken trace."""
    if spec.trace is not None:
        trace, _ = open_trace(Path(spec.trace))
        within = trace[: np.searchsorted(trace, spec.duration_ns)]
        return replayed_times_ns(within, spec.rate_rps, spec.warmup_ns)
    if spec.shape is not None:
        return shaped_times_ns(
            spec.arrivals, spec.rate_rps, spec.shape, spec.warmup_ns, spec.duration_ns, spec.seed
        )
    return arrival_times_ns(spec.arrivals, spec.rate_rps, spec.warmup_ns + spec.duration_ns, spec.seed)
