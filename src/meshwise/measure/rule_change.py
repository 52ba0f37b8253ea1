"""A posture change under load: when the last request passed under the old rule, and when the new one first
held, by kind of connection. Pure.

Rules of this file:
- What tells the rules apart is found, not told: a group of clients (inside the mesh or outside it, by
  operation, and forbidden or not) most of whose requests pass in the undisturbed time on one side of the
  change, and hardly any on the other. A group that fares alike on both sides tells nothing, and is left out.
- But for groups of which it is known: where the new posture forbids what it asks, and the old one did not, it
  is told however long it still passes, or an opening that outlasts the time would go undetected.
- Passed is what was answered without an error; whatever else came of a request, it did not pass.
- Times are those of sending, counted from the beginning of the change: it was accepted then. A request that
  was answered later passed by the rule that held when it arrived.
- Of the instrument's connections the archive knows the place, not the life: one is `new` from the request on
  that had to wait for it to be set up, or that follows one in the same place that lost it, after the change;
  else it is `idle` if it had carried nothing for IDLE_NS, and `busy` if it had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from meshwise.measure.moments import LEAD_NS, POSTURE, Happening, Moments
from meshwise.stats.arrays import BoolArray
from meshwise.study.demands import effective_posture
from meshwise.study.forbidden import forbids, forbids_plaintext
from meshwise.study.model import Cell
from meshwise.study.security import POSTURES, Posture

IDLE_NS = 10**9
MOST_PASS, FEW_PASS = 0.9, 0.1
SIDE_NS = 5 * 10**9
LEAST = 10
"""Requests on either side, to say that a group fares one way there."""
LOSING = ("connect", "tls", "reset", "timeout", "goaway", "protocol")
"""Errors after which the place has another connection."""
KINDS = ("new", "busy", "idle")


@dataclass(frozen=True)
class Passed:
    """One group of requests at one posture change."""

    happening: Happening
    client: str
    connection: str
    """One of KINDS; empty: all of them."""
    closes: bool
    """The new rule refuses them; else it is the old one that did."""
    requests: int
    """Sent between the change and the time when the new rule surely held."""
    last_old_ms: float | None
    """When the last request that the old rule explains was sent, after the change was accepted; negative:
    before. None without one."""
    last_old_at_ns: int | None
    """The same as the archive has it, in the trial's time."""
    first_new_ms: float | None
    """When the first that only the new one explains was sent."""
    forbidden: bool = False
    """Requests that the load holds because a stricter posture forbids them."""
    still_open: bool = False
    """They still passed when the time of the change was over."""
    errors: tuple[tuple[str, int], ...] = ()
    """Of `requests` those that did not pass, by kind."""


def rule_changes(
    requests: pl.DataFrame, changes: Sequence[Happening], moments: Moments, cell: Cell | None = None
) -> tuple[Passed, ...]:
    """`requests` as in `archive.schema`; `changes`: the posture changes among the trial's events, in their
    order; `cell`: of the trial, where it is to be known who is forbidden what."""
    if not changes or requests.is_empty():
        return ()
    frame = _with_columns(requests)
    closed = _closed(changes, cell) if cell is not None else [_Closed()] * len(changes)
    return tuple(
        passed
        for change, known in zip(changes, closed, strict=True)
        for passed in _of_change(frame, change, moments, known)
    )


@dataclass(frozen=True)
class _Closed:
    """Whom a change forbids what it had not been forbidden."""

    forbidden: bool = False
    plaintext: bool = False

    def to(self, client: str, forbidden: bool) -> bool:
        return self.forbidden if forbidden else self.plaintext and client == "outside"


def _closed(changes: Sequence[Happening], cell: Cell) -> list[_Closed]:
    found, was = [], _met(cell, cell.posture)
    for change in changes:
        name, _, back = change.event.removeprefix(f"{POSTURE} ").partition(", ")
        known = cell.posture if back else POSTURES.get(name)
        if known is None:
            found.append(_Closed())
            continue
        now = _met(cell, known)
        found.append(
            _Closed(
                forbids(now, cell.forbidden_by) and not forbids(was, cell.forbidden_by),
                forbids_plaintext(now) and not forbids_plaintext(was),
            )
        )
        was = now
    return found


def _met(cell: Cell, posture: Posture) -> Posture:
    """By callers of the entry, which may have demands of its own."""
    return effective_posture(replace(cell, posture=posture), cell.topology.entry)


def _with_columns(requests: pl.DataFrame) -> pl.DataFrame:
    """By time of sending, with the columns that may be absent."""
    texts = {"client": "mesh", "operation": "", "waited_for": ""}
    frame = requests.with_columns(
        [
            pl.col(name).cast(pl.String).fill_null(usual)
            if name in requests.columns
            else pl.lit(usual).alias(name)
            for name, usual in texts.items()
        ]
    )
    connection = pl.col("connection") if "connection" in frame.columns else pl.lit(-1).alias("connection")
    forbidden = pl.col("forbidden").fill_null(False) if "forbidden" in frame.columns else pl.lit(False)
    error = pl.col("error").cast(pl.String).fill_null("")
    return frame.with_columns(
        connection,
        forbidden.alias("forbidden"),
        error,
        ((error == "") & pl.col("done_ns").is_not_null()).alias("passed"),
        pl.coalesce("sent_ns", "intended_ns").alias("at_ns"),
    ).sort("at_ns")


def _of_change(frame: pl.DataFrame, change: Happening, moments: Moments, closed: _Closed) -> Iterator[Passed]:
    begun = change.begun_ns
    others = [each.begun_ns for each in moments.happenings]
    next_ns = min([at for at in others if at > begun], default=moments.duration_ns)
    earlier = [each for each in moments.happenings if each.begun_ns < begun]
    free_from = max((each.begun_ns + moments.horizon_ns(each) for each in earlier), default=0)
    settled = begun + moments.horizon_ns(change)
    before = pl.col("at_ns").is_between(max(free_from, begun - SIDE_NS), begun - LEAD_NS)
    own = frame.filter(pl.col("at_ns").is_between(free_from, next_ns))
    by = ["client", "operation", "forbidden"]
    for (client, _, forbidden), group in own.partition_by(by, as_dict=True).items():
        who = (str(client), bool(forbidden))
        then = group.filter(before)["passed"]
        later = group.filter(pl.col("at_ns") >= settled)["passed"]
        if min(len(then), len(later)) < LEAST:
            continue
        # polars' `mean` may be a time; of truth values it is a number.
        was, became = float(then.mean() or 0.0), float(later.mean() or 0.0)  # type: ignore[arg-type]
        if was >= MOST_PASS and (became <= FEW_PASS or closed.to(*who)):
            yield from _told(group, who, change, settled, closes=True)
        elif was <= FEW_PASS and became >= MOST_PASS:
            yield from _told(group, who, change, settled, closes=False)


def _told(
    group: pl.DataFrame, who: tuple[str, bool], change: Happening, settled: int, *, closes: bool
) -> Iterator[Passed]:
    at, passed = group["at_ns"].to_numpy(), group["passed"].to_numpy()
    old = passed if closes else ~passed
    kinds = _kinds(group, change.begun_ns)
    for kind in ("", *(each for each in KINDS if (kinds == each).any())):
        chosen = (kinds == kind) if kind else np.ones(len(at), dtype=np.bool_)
        explained = at[chosen & old & ((at >= change.begun_ns) | (kind == ""))]
        fresh = at[chosen & ~old & (at >= change.begun_ns)]
        last = int(explained[-1]) if len(explained) else None
        yield Passed(
            change, who[0], kind, closes,
            int((chosen & (at >= change.begun_ns) & (at < settled)).sum()),
            None if last is None else (last - change.begun_ns) / 1e6, last,
            (int(fresh[0]) - change.begun_ns) / 1e6 if len(fresh) else None,
            who[1],
            closes and bool((explained >= settled).any()) and bool(passed[-LEAST:].mean() > FEW_PASS),
            _errors(group, chosen & ~passed & (at >= change.begun_ns) & (at < settled)),
        )  # fmt: skip


def _errors(group: pl.DataFrame, chosen: BoolArray) -> tuple[tuple[str, int], ...]:
    kinds = group["error"].filter(pl.Series(chosen)).replace("", "unanswered")
    return tuple(sorted(Counter(kinds.to_list()).items()))


def _kinds(group: pl.DataFrame, begun_ns: int) -> np.ndarray:
    """One of KINDS for every request after the change, else empty; empty for all where the places of the
    connections were not recorded."""
    at = group["at_ns"].to_numpy()
    places = group["connection"].to_numpy()
    found = np.full(len(at), "", dtype="<U4")
    if not len(at) or (places < 0).all():
        return found
    waited = (group["waited_for"] == "connection").to_numpy()
    lost = group["error"].is_in(LOSING).to_numpy()
    done = group["done_ns"].fill_null(-1).to_numpy()
    for place in np.unique(places):
        rows = np.flatnonzero(places == place)
        own_at = at[rows]
        before_lost = np.concatenate([[False], lost[rows][:-1]])
        ended = np.concatenate([[own_at[0]], np.maximum(done[rows][:-1], own_at[:-1])])
        after: BoolArray = own_at >= begun_ns
        new = np.cumsum((waited[rows] | before_lost) & after) > 0
        idle = own_at - ended >= IDLE_NS
        found[rows] = np.where(~after, "", np.where(new, "new", np.where(idle, "idle", "busy")))
    return found
