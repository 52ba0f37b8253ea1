"""The steps of a study that still runs, as lines of text: a table for a terminal, one line for a log.

Plain strings of fixed columns, because setting them must cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from meshwise.analysis.live import SHOWN, Change, StepSoFar
from meshwise.report.words import Form, form_for

NOT_YET = "..."
"""An interval needs two executions."""
FAILED = "too many failures"


def table_lines(steps: Sequence[StepSoFar]) -> list[str]:
    """A heading and one line per step; empty without a step."""
    if not steps:
        return []
    settings = len({step.setting for step in steps}) > 1
    forms = [_forms(steps, place) for place in range(len(SHOWN))]
    rows = [("step", *(["setting"] if settings else []), "n", *(key.entry.short for key in SHOWN))]
    for step in steps:
        count = max(change.n for change in step.changes)
        told = (change_words(change, forms[place]) for place, change in enumerate(step.changes))
        rows.append((name_of(step), *([step.setting] if settings else []), str(count), *told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def line_of(steps: Sequence[StepSoFar]) -> str:
    """The same steps in one line, each setting said once."""
    forms = [_forms(steps, place) for place in range(len(SHOWN))]
    told = []
    for setting, group in groupby(steps, key=lambda step: step.setting):
        changes = (
            f"{name_of(step)}: "
            + ", ".join(
                f"{change.key.entry.short} {change_words(change, forms[place])}"
                for place, change in enumerate(step.changes)
            )
            for step in group
        )
        told.append(f"{setting} · {'; '.join(changes)}")
    return " · ".join(told)


def busy_words(busy: float | None) -> str:
    """Of the pods' CPUs in a round; empty if it was not read."""
    return "" if busy is None else f"CPUs of the pods {busy:.0%} busy"


def name_of(step: StepSoFar) -> str:
    return f"{step.mesh} {step.lower} → {step.upper}"


Forms = tuple[Form, Form]
"""Of ratios, as a change in per cent, and of differences."""


def change_words(change: Change, forms: Forms) -> str:
    """`+5.3 % [4.8, 5.8]`; a difference where there is no ratio (to nothing); no interval yet: `...`."""
    if change.failures:
        return FAILED
    estimate, low, high = _shown(change)
    form = forms[0 if change.ratio is not None else 1]
    if estimate is None:
        return NOT_YET
    return f"{form.signed(estimate)} {form.unit} {form.interval(low, high) or NOT_YET}"


def _shown(change: Change) -> tuple[float | None, float | None, float | None]:
    if change.ratio is None:
        return change.estimate, change.low, change.high
    less_one = (
        None if end is None else end - 1 for end in (change.ratio, change.ratio_low, change.ratio_high)
    )
    estimate, low, high = less_one
    return estimate, low, high


def _forms(steps: Sequence[StepSoFar], place: int) -> Forms:
    changes = [step.changes[place] for step in steps]
    ratios = [_shown(change) for change in changes if change.ratio is not None]
    plain = [_shown(change) for change in changes if change.ratio is None]
    return _form("ratio", ratios), _form(SHOWN[place].entry.unit, plain)


def _form(unit: str, shown: Sequence[tuple[float | None, float | None, float | None]]) -> Form:
    widths = [(high - low) / 2 for _, low, high in shown if low is not None and high is not None]
    return form_for(unit, [estimate for estimate, _, _ in shown], widths)
