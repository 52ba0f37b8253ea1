"""What a fake testbed does to its trials: every event on time, taken up after a known while."""

from __future__ import annotations

import pyarrow as pa

from meshwise.archive.event_rows import EventRow, events_table
from meshwise.study.design.rounds import disturbed
from meshwise.study.model import Study, Trial
from meshwise.study.timeline import ChangePosture, Restart, event_name, lasts_ns

TAKES_NS = 5_000_000
"""From the beginning of an act until it is taken up."""


def events_of(study: Study, trial: Trial) -> pa.Table | None:
    """None where nothing is meant to happen."""
    if not disturbed(study, trial):
        return None
    environment = f"{trial.cell.mesh}/{trial.process_set}"
    names = [workload.name for workload in trial.cell.topology.workloads]
    rows = []
    for each in study.trial.timeline.occurrences(study.window_ns(trial)):
        act, over_ns = each.act, lasts_ns(each.act)
        targets = [environment]
        if isinstance(act, Restart):
            workload = act.workload or names[(each.repeat + 1) % len(names)]
            targets = [f"{environment}/{workload}/{act.what}"]
        elif not over_ns:
            targets = [f"{environment}/{name}/proxy" for name in names]
        detail = {}
        if isinstance(act, ChangePosture):
            detail = {"named": act.posture.name, "back": each.back}
        for target in targets:
            done_ns = each.intended_ns + (over_ns or TAKES_NS)
            rows.append(
                EventRow(
                    event_name(act),
                    target,
                    each.entry,
                    each.number,
                    each.intended_ns,
                    each.intended_ns,
                    done_ns,
                    detail,
                )
            )
    return events_table(rows)
