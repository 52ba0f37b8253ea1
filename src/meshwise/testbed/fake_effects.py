"""What the fake testbed plants around each event: known, so that what the analysis finds can be held against
it. `EFFECTS` is the truth of one occurrence.

Where the posture changes, every tenth request comes from a client outside the mesh, in plaintext: a posture
of strict mTLS refuses it, any other lets it through. The old rule holds for LAST_OLD_MS longer, and for
IDLE_LAST_OLD_MS on the connection that carries every OUTSIDE_IDLE-th request of that client.

Where some requests are forbidden there is no such client. They are refused wherever the posture forbids them;
where it changes, from FORBIDDEN_OLD_MS after that on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from meshwise.load.spread import ROOT_OF_TWO, Spread
from meshwise.study.design.rounds import disturbed
from meshwise.study.forbidden import forbids
from meshwise.study.model import MtlsMode, Study, Trial
from meshwise.study.timeline import ChangePosture

MS = 10**6
OUTSIDE_EVERY, OUTSIDE_IDLE = 10, 50
LAST_OLD_MS, IDLE_LAST_OLD_MS, FORBIDDEN_OLD_MS = 40, 700, 90


@dataclass(frozen=True)
class PlantedEffect:
    share: float = 0.0
    """Of the requests due meanwhile that take `added_us` more, evenly spread over them."""
    added_us: float = 0.0
    lasts_ms: int = 0
    fails: int = 0
    """Requests that fail, from the beginning on, one after the other."""
    handshakes: int = 0
    """Of each sidecar."""
    cpu_ms: float = 0.0
    """Of all sidecars together."""


EFFECTS: Mapping[str, PlantedEffect] = {
    "rotate leaf": PlantedEffect(share=0.25, added_us=2000, lasts_ms=200, handshakes=2, cpu_ms=6),
    "rotate issuer": PlantedEffect(share=0.25, added_us=2000, lasts_ms=300, handshakes=3, cpu_ms=8),
    "rotate anchor": PlantedEffect(share=0.5, added_us=2000, lasts_ms=400, handshakes=4, cpu_ms=10),
    "push policies": PlantedEffect(share=0.5, added_us=1500, lasts_ms=100, cpu_ms=20),
    "posture": PlantedEffect(share=0.25, added_us=1500, lasts_ms=150, handshakes=2, cpu_ms=5),
    "restart proxy": PlantedEffect(share=1.0, added_us=4000, lasts_ms=300, fails=5, handshakes=4, cpu_ms=40),
}
"""By event; what is not here does nothing."""


def planted(
    requests: pa.Table, telemetry: pa.Table, events: pa.Table | None, study: Study, trial: Trial
) -> tuple[pa.Table, pa.Table]:
    """Both tables (columns as in `archive.schema`, without the trial's id) with what `events` did; of a study
    in which nothing is done as they are, but for requests that are forbidden."""
    requests = _with_forbidden(requests, study, trial) if trial.cell.forbidden_share else requests
    if not study.trial.timeline:
        return requests, telemetry
    begun = [] if events is None else _begun(events)
    asked, read = pl.from_arrow(requests), pl.from_arrow(telemetry)
    assert isinstance(asked, pl.DataFrame)
    assert isinstance(read, pl.DataFrame)
    asked = _slowed(asked, begun)
    changes = any(isinstance(each.act, ChangePosture) for each in study.trial.timeline.declared)
    if begun and changes and not trial.cell.forbidden_share:
        asked = _with_outside(asked, study, trial)
    proxies = [w.name for w in trial.cell.topology.workloads] if trial.cell.posture.mtls is not None else []
    prefix = f"{trial.cell.mesh}/{trial.process_set}"
    read = _spent(read, begun, [f"{prefix}/{name}/proxy" for name in proxies])
    return asked.to_arrow(), read.to_arrow()


def _begun(events: pa.Table) -> list[tuple[str, int]]:
    """Each occurrence once, with when it began."""
    columns = (events[name].to_pylist() for name in ("event", "occurrence", "begun_ns"))
    found: dict[tuple[str, int], int] = {}
    for event, occurrence, begun_ns in zip(*columns, strict=True):
        if begun_ns is not None:
            found[event, occurrence] = min(begun_ns, found.get((event, occurrence), begun_ns))
    return [(event, at) for (event, _), at in found.items()]


def _slowed(asked: pl.DataFrame, begun: list[tuple[str, int]]) -> pl.DataFrame:
    intended = asked["intended_ns"].to_numpy()
    added = np.zeros(len(intended), dtype=np.int64)
    fails = np.zeros(len(intended), dtype=np.bool_)
    for event, begun_ns in begun:
        effect = EFFECTS.get(event, PlantedEffect())
        first, last = np.searchsorted(intended, (begun_ns, begun_ns + effect.lasts_ms * MS))
        number = np.arange(last - first)
        turn = np.floor((number + 1) * effect.share) > np.floor(number * effect.share)
        added[first:last][turn] += round(effect.added_us * 1e3)
        fails[first : min(last, first + effect.fails)] = True
    later = pl.Series(added)
    gone = pl.Series(fails)
    return asked.with_columns(
        pl.when(gone).then(None).otherwise(pl.col("first_byte_ns") + later).alias("first_byte_ns"),
        pl.when(gone).then(None).otherwise(pl.col("done_ns") + later).alias("done_ns"),
        pl.when(gone).then(0).otherwise(pl.col("status")).cast(pl.Int32).alias("status"),
        pl.when(gone).then(pl.lit("reset")).otherwise(pl.col("error").cast(pl.String)).alias("error"),
    )


def _with_outside(asked: pl.DataFrame, study: Study, trial: Trial) -> pl.DataFrame:
    at = asked["intended_ns"].to_numpy()
    number = np.arange(len(at))
    outside = number % OUTSIDE_EVERY == 0
    idle = outside & (number // OUTSIDE_EVERY % OUTSIDE_IDLE == OUTSIDE_IDLE - 1)
    longer = np.where(idle, IDLE_LAST_OLD_MS, LAST_OLD_MS) * MS
    own = trial.cell.posture
    strict = np.full(len(at), own.mtls is MtlsMode.STRICT)
    for each in study.trial.timeline.occurrences(study.window_ns(trial)):
        if isinstance(each.act, ChangePosture):
            now = own if each.back else each.act.posture
            strict = np.where(at > each.intended_ns + longer, now.mtls is MtlsMode.STRICT, strict)
    refused = pl.Series(outside & strict)
    place = np.where(idle, 101, np.where(outside, 100, number % max(1, trial.cell.connections)))
    return asked.with_columns(
        pl.Series("client", np.where(outside, "outside", "mesh")),
        pl.Series("connection", place.astype(np.int32)),
        pl.when(refused).then(403).otherwise(pl.col("status")).cast(pl.Int32).alias("status"),
        pl.when(refused).then(pl.lit("http_status")).otherwise(pl.col("error")).alias("error"),
    )


def _with_forbidden(requests: pa.Table, study: Study, trial: Trial) -> pa.Table:
    asked = pl.from_arrow(requests)
    assert isinstance(asked, pl.DataFrame)
    cell = trial.cell
    at = asked["intended_ns"].to_numpy()
    marked = Spread(cell.forbidden_share, ROOT_OF_TWO).marks(len(at))
    in_force = np.full(len(at), forbids(cell.posture, cell.forbidden_by))
    for each in study.trial.timeline.occurrences(study.window_ns(trial)):
        if isinstance(each.act, ChangePosture) and disturbed(study, trial):
            now = cell.posture if each.back else each.act.posture
            later = at > each.intended_ns + FORBIDDEN_OLD_MS * MS
            in_force = np.where(later, forbids(now, cell.forbidden_by), in_force)
    refused = pl.Series(marked & in_force)
    number = np.arange(len(at))
    strange = marked & bool(cell.stranger_share)
    place = np.where(strange, 200, number % max(1, cell.connections))
    return asked.with_columns(
        pl.Series("client", np.where(strange, "stranger", "mesh")),
        pl.Series("forbidden", marked),
        pl.Series("connection", place.astype(np.int32)),
        pl.when(refused).then(403).otherwise(pl.col("status")).cast(pl.Int32).alias("status"),
        pl.when(refused)
        .then(pl.lit("http_status"))
        .otherwise(pl.col("error").cast(pl.String))
        .alias("error"),
    ).to_arrow()


def _spent(read: pl.DataFrame, begun: list[tuple[str, int]], proxies: list[str]) -> pl.DataFrame:
    """With the CPU that events cost, shared evenly by the sidecars, and a series of handshakes of each."""
    times = read["t_ns"].to_numpy()

    def until(t_ns: npt.NDArray[np.int64], of: str) -> npt.NDArray[np.float64]:
        spent = np.zeros(len(t_ns))
        for event, begun_ns in begun:
            spent += (t_ns > begun_ns) * float(getattr(EFFECTS.get(event, PlantedEffect()), of))
        return spent

    mine = ((pl.col("metric") == "cpu_ns") & pl.col("source").is_in(proxies)).alias("mine")
    cost_ns = pl.Series(until(times, "cpu_ms") * 1e6 / max(1, len(proxies)))
    read = read.with_columns(
        pl.when(mine).then(pl.col("value") + cost_ns).otherwise(pl.col("value")).alias("value")
    )
    clocks = read.filter(mine)
    shaken = clocks.with_columns(
        pl.lit("tls_handshakes_total").alias("metric"),
        pl.Series("value", 10.0 + until(clocks["t_ns"].to_numpy(), "handshakes")),
    )
    return pl.concat([read, shaken])
