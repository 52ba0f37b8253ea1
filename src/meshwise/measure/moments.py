"""When something was done to a trial, and what time of it is left as usual. Pure.

Rules of this file:
- An event begins when the first of its targets does and is done when the last one is.
- From its beginning until half-way between its end and the next one's beginning it has the time for itself;
  the other half, and what is before the first event, is the trial's undisturbed time. An effect that lasts
  into it is compared with itself, and the analysis says so.
- A request that was under way when the event began belongs to it: LEAD_NS before the beginning are its own.
- Bins are as narrow as they can be with ENOUGH requests in each, over all occurrences of an event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

LEAD_NS = 10**8
BINS_NS = tuple(ms * 10**6 for ms in (10, 20, 50, 100, 200, 500, 1000))
ENOUGH = 100
MOST_BINS = 1500
MOST_NS = 60 * 10**9
"""Longer after its beginning nothing is looked for."""

MOST_DRAWN_BEFORE_NS = 10**9


@dataclass(frozen=True)
class Happening:
    """One occurrence of an event in a trial, all its targets together."""

    event: str
    """As the archive has it, and what tells several of a study apart: `rotate leaf`, `posture strict`,
    `posture strict, back`, `push policies 1000`."""
    occurrence: int
    intended_ns: int
    begun_ns: int
    done_ns: int | None
    """None: it was not done by one target at least."""
    targets: int = 1


@dataclass(frozen=True)
class Looked:
    """How occurrences of one event are looked at in one cell: with the same bins in all its trials."""

    bin_ns: int
    lead: int
    """Bins before the beginning; they are drawn."""
    own: int
    """The first bin that belongs to it."""
    bins: int
    """All, those of the lead among them."""

    @property
    def starts_ns(self) -> int:
        """Of the first bin, from the beginning of the event."""
        return -self.lead * self.bin_ns

    def at_ms(self, place: float) -> float:
        """Where a bin begins, in ms from the beginning of the event."""
        return (place - self.lead) * self.bin_ns / 1e6


@dataclass(frozen=True)
class Moments:
    """What a trial's tables are read for."""

    happenings: tuple[Happening, ...]
    """In the order of beginning."""
    looked: Mapping[str, Looked]
    """By event."""
    duration_ns: int

    def horizon_ns(self, happening: Happening) -> int:
        """How much time from its beginning on it has for itself."""
        following = self._next_ns(happening)
        end_ns = min(max(happening.done_ns or 0, happening.begun_ns), following)
        return min(MOST_NS, end_ns + (following - end_ns) // 2 - happening.begun_ns)

    def _next_ns(self, happening: Happening) -> int:
        later = (each.begun_ns for each in self.happenings if each.begun_ns > happening.begun_ns)
        return min([*later, max(self.duration_ns, happening.begun_ns)])

    @property
    def undisturbed(self) -> tuple[tuple[int, int], ...]:
        """Stretches of the measured window, from and to, in ns."""
        found, free_from = [], 0
        for each in self.happenings:
            found.append((free_from, each.begun_ns - LEAD_NS))
            free_from = max(free_from, each.begun_ns + self.horizon_ns(each))
        found.append((free_from, self.duration_ns))
        return tuple((start, end) for start, end in found if end > start)


def happenings_of(events: pl.DataFrame) -> dict[str, tuple[Happening, ...]]:
    """trial_id -> its events, of `events` as in `archive.schema.EVENTS`; what never began is left out."""
    if "event" not in events.columns or events.is_empty():
        return {}
    begun = events.filter(pl.col("begun_ns").is_not_null() & pl.col("event").is_not_null())
    rows: dict[tuple[str, str, int, int], list[Mapping[str, Any]]] = {}
    kinds: dict[str, set[str]] = {}
    for row in begun.iter_rows(named=True):
        key = (str(row["trial_id"]), str(row["event"]), row.get("entry") or 0, row.get("occurrence") or 0)
        rows.setdefault(key, []).append(row)
        kinds.setdefault(key[1], set()).add(_kind(row))
    found: dict[str, list[Happening]] = {}
    for (trial_id, event, _, occurrence), targets in rows.items():
        done = [each["done_ns"] for each in targets]
        begun_ns = min(each["begun_ns"] or 0 for each in targets)
        intended = [each["intended_ns"] for each in targets]
        kind = _kind(targets[0])
        told = kind and (event == POSTURE or len(kinds[event]) > 1)
        found.setdefault(trial_id, []).append(
            Happening(
                f"{event} {kind}" if told else event,
                occurrence,
                min((at for at in intended if at is not None), default=begun_ns),
                begun_ns,
                None if None in done else max(at for at in done if at is not None),
                len(targets),
            )
        )
    return {
        trial_id: tuple(sorted(each, key=lambda one: (one.begun_ns, one.event)))
        for trial_id, each in found.items()
    }


POSTURE = "posture"


def _kind(row: Mapping[str, Any]) -> str:
    """What `detail` says of an occurrence that sets it apart from others of the same event."""
    try:
        detail = json.loads(row.get("detail") or "{}")
    except ValueError:
        return ""
    if not isinstance(detail, dict):
        return ""
    if "named" in detail:
        return f"{detail['named']}{', back' if detail.get('back') else ''}"
    words = [str(detail[name]) for name in ("count", "how", "fault") if name in detail]
    words += [name for name in ("relevant", "drain") if detail.get(name)]
    return " ".join(words)


def looked_at(trials: Sequence[Moments], event: str, rate_rps: float) -> Looked | None:
    """How all occurrences of an event in trials of one cell are looked at; None without any that has time."""
    own = [(each, one) for each in trials for one in each.happenings if one.event == event]
    horizons = [each.horizon_ns(one) for each, one in own]
    if not horizons or (after_ns := int(np.median(horizons))) <= 0:
        return None
    bin_ns = next((width for width in BINS_NS if rate_rps * len(own) * width / 1e9 >= ENOUGH), BINS_NS[-1])
    while after_ns / bin_ns > MOST_BINS:
        bin_ns *= 2
    early, after = -(-LEAD_NS // bin_ns), max(1, after_ns // bin_ns)
    lead = max(early, min(after // 2, MOST_DRAWN_BEFORE_NS // bin_ns))
    return Looked(bin_ns, lead, lead - early, lead + after)


def moments_of(
    found: Mapping[str, tuple[Happening, ...]], duration_ns: int, rates: Mapping[str, tuple[str, float]]
) -> dict[str, Moments]:
    """By trial_id. `rates`: trial_id -> what it is counted with (its cell), and its requests per second; a
    trial that is not in it is left out."""
    bare = {name: Moments(each, {}, duration_ns) for name, each in found.items() if name in rates}
    by_cell: dict[str, list[str]] = {}
    for name in bare:
        by_cell.setdefault(rates[name][0], []).append(name)
    result: dict[str, Moments] = {}
    for names in by_cell.values():
        own = [bare[name] for name in names]
        looked = {
            event: found_so
            for event in dict.fromkeys(one.event for each in own for one in each.happenings)
            if (found_so := looked_at(own, event, rates[names[0]][1])) is not None
        }
        result |= {name: Moments(bare[name].happenings, looked, duration_ns) for name in names}
    return result


def events_in(moments: Iterable[Moments]) -> tuple[str, ...]:
    """Each event once, in the order in which they are met."""
    return tuple(dict.fromkeys(event for each in moments for event in each.looked))
