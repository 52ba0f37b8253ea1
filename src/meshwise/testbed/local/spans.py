"""The spans of a study's trials: the receiver's process, and what is collected after each trial.

Rules of this file:
- The receiver is nobody's sidecar and in nobody's pod: a process of its own, beside the instrument where CPUs
  are divided, of the lowest priority, sampled under the source `receiver`.
- Exporters send when a batch is full or old (Envoy 5 s, linkerd2-proxy 10 s): after a trial we wait until
  every traced request has what is due of it, or until that time has passed. A span of another trial is told
  by its trace id, whose first half is the trial's.
- A receiver that ended takes spans with it, not the trial: that is flagged, and the next has a new one.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory
from meshwise.core.patience import Patience
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.findings.flag import (
    CLOCK_STEPPED,
    RECEIVER_ENDED,
    SPANS_DROPPED,
    SPANS_MALFORMED,
    SPANS_MISSING,
    Flag,
)
from meshwise.load.traced import Tracing, root_id
from meshwise.study.model import MeshName, TopologyKind, Trial
from meshwise.telemetry.source import Source
from meshwise.telemetry.spans import COLLECTOR_PORT, read, receiver
from meshwise.telemetry.spans.read import Found, ReadSpan, Troubles
from meshwise.telemetry.spans.receiver import Received, ReceiverSpec
from meshwise.testbed.applications.echo import node_file
from meshwise.testbed.applications.seam import ApplicationEnvironment
from meshwise.testbed.layout import Environment
from meshwise.testbed.local.instrument import Instrument
from meshwise.testbed.local.measure import Arm
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.seam import Measurement

RECEIVER = "receiver"
"""Source of its CPU and memory."""
INTERVAL_S = {MeshName.NONE: 0.0, MeshName.ISTIO: 5.0, MeshName.LINKERD: 10.0}
"""After which exporters send what they have: Envoy's `tracing.opentelemetry.flush_interval_ms`,
BATCH_INTERVAL of linkerd2-proxy (linkerd/opentelemetry/src/lib.rs)."""
BATCH_S = 5.0
"""Of the OpenTelemetry SDK (OTEL_BSP_SCHEDULE_DELAY), with which the bank's services export."""
_SLACK_S = 1.0
_POLL_S = 0.2
_STEP_NS = 5_000_000
"""A wall clock that went so far from the monotonic one during a trial was set."""
_TAKEN = "taken"


@dataclass(frozen=True)
class Traced:
    """One trial whose requests were traced, for `SpanCollector.collect`."""

    trial_id: str
    mesh: MeshName
    process_set: str
    tracing: Tracing
    """Of the clients inside the mesh."""
    requests: pa.Table
    """Those of its client, row k of which is request k; times from time 0."""
    zero_ns: int
    """The trial's time 0 on CLOCK_MONOTONIC."""
    proxies: frozenset[str]
    """Workloads whose sidecars see every request; empty where that depends on the request."""
    services: frozenset[str]
    """The same of services."""
    node_files: Mapping[str, Path]
    """By workload: where a graph node wrote its spans."""
    sdk: bool = False
    """Services export by themselves, in batches."""


def _traced(trial: Trial, part: Environment, client: Instrument, zero_ns: int, nodes: Path) -> Traced | None:
    """One that was measured; None if nothing of it is traced. `part`: its workloads; `client`: the one inside
    the mesh; `nodes`: where graph nodes write."""
    if client.spec.tracing is None:
        return None
    topology, bank = trial.cell.topology, trial.cell.shape is TopologyKind.BANK
    always = () if bank or topology.graph else part.placement.workloads
    return Traced(
        trial.trial_id, trial.cell.mesh, trial.process_set, client.spec.tracing, client.requests(), zero_ns,
        frozenset(each.name for each in always) if trial.cell.mesh is not MeshName.NONE else frozenset(),
        frozenset(each.name for each in always[1:]),
        {each.name: node_file(nodes, each.name) for each in part.nodes if not bank},
        sdk=bank,
    )  # fmt: skip


@dataclass(frozen=True)
class Collected:
    spans: pa.Table
    flags: tuple[str, ...]
    log_tail: str = ""


def collector(
    home: Path,
    environments: Sequence[Environment],
    pods: Mapping[str, Pod],
    cpus: tuple[int, ...],
    patience: Patience,
    owner: ExitStack,
) -> SpanCollector | None:
    """Of all pods of environments that are traced, on the CPUs `cpus`; None where nothing is traced."""
    traced = [each for each in environments if each.placement.traced]
    if not traced:
        return None
    names = [each.pod_name(placed.name) for each in traced for placed in each.placement.workloads]
    return owner.enter_context(SpanCollector(home, [pods[name].network_fd for name in names], cpus, patience))


def wall_minus_monotonic_ns() -> int:
    """What the wall clock shows more; read three times, of which the quickest counts."""
    readings = []
    for _ in range(3):
        before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


class SpanCollector:
    """Owner of the receiver. A context manager."""

    def __init__(
        self,
        home: Path,
        networks: Sequence[int],
        cpus: tuple[int, ...],
        patience: Patience,
        most_bytes: int = receiver.MOST_BYTES,
        port: int = COLLECTOR_PORT,
    ) -> None:
        """`networks`: descriptors of the pods' networks. `cpus`: where it may run; empty: anywhere."""
        self._directory = make_directory(home / "spans", PRIVATE_DIRECTORY)
        self._networks, self._cpus, self._patience = tuple(networks), cpus, patience
        self._most_bytes, self._port = most_bytes, port
        self._process: OwnedProcess | None = None
        self._offset_ns = 0

    def __enter__(self) -> SpanCollector:
        self._start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None:
            self._process.stop()

    @property
    def process(self) -> OwnedProcess:
        assert self._process is not None, "it is used inside `with`"
        return self._process

    def _start(self) -> None:
        """Returns when it listens everywhere. Raises MW211 or MW212."""
        spec = ReceiverSpec(
            str(self._directory),
            tuple(f"/proc/self/fd/{fd}" for fd in self._networks),
            self._port,
            self._most_bytes,
        )
        spec.write(self._directory / "spec.json")
        self._process = OwnedProcess(
            LaunchPlan(
                name=RECEIVER,
                argv=(sys.executable, "-m", receiver.__name__, str(self._directory / "spec.json")),
                environment=dict(os.environ),
                log=self._directory / "log",
                cpus=self._cpus,
                descriptors=self._networks,
                stop_s=self._patience.stop_s,
            ),
            pipe_stdout=True,
        )  # fmt: skip
        control = self._directory / receiver.CONTROL
        control.unlink(missing_ok=True)
        self._process.wait_until(control.exists, "listening", self._patience.start_s)

    def begin(self, places: Iterable[ApplicationEnvironment]) -> Mapping[str, int]:
        """Before a trial: what came until now is thrown away; a receiver that ended is replaced. The
        process ids of what has to be sampled, by source."""
        if not self.process.running:
            self._start()
        self._take()
        for path in _node_files(places):
            if path.exists():
                os.truncate(path, 0)
        self._offset_ns = wall_minus_monotonic_ns()
        return {RECEIVER: self.process.pid}

    def collect(self, trials: Sequence[Traced]) -> Mapping[str, Collected]:
        """What came of each of these, by trial_id; returns when nothing more is to be expected."""
        if not trials:
            return {}
        waits = [INTERVAL_S[each.mesh] for each in trials] + [BATCH_S * each.sdk for each in trials]
        deadline = time.monotonic() + (max(waits) + _SLACK_S) * self._patience.slowness
        ended = ""
        time.sleep(_POLL_S)  # nodes write what they have within less
        while self.process.running and time.monotonic() < deadline and not self._complete(trials):
            time.sleep(_POLL_S)
        counts = self._take()
        if counts is None:
            ended = self.process.ending or "does not answer"
            counts = Received()
        found = self._read(trials, self._directory / (_TAKEN if not ended else receiver.BATCHES))
        stepped_ns = wall_minus_monotonic_ns() - self._offset_ns
        return {
            each.trial_id: _collected(each, found, counts, stepped_ns, ended, self.process.log_tail())
            for each in trials
        }

    def with_spans(
        self,
        measured: Mapping[str, Measurement],
        arms: Iterable[tuple[Trial, Environment, Arm, ApplicationEnvironment]],
    ) -> Mapping[str, Measurement]:
        """After a round: the measurements, those of traced trials with what came of them. `arms`: with the
        part of its environment that a trial uses, and its application's place."""
        trials = [
            _traced(trial, part, arm.instruments[0], arm.zero_ns, place.files)
            for trial, part, arm, place in arms
            if arm.failure is None
        ]
        found = self.collect([each for each in trials if each is not None])
        return {
            trial_id: one
            if (own := found.get(trial_id)) is None
            else replace(
                one, spans=own.spans, flags=(*one.flags, *own.flags), log_tail=one.log_tail or own.log_tail
            )
            for trial_id, one in measured.items()
        }

    def _take(self) -> Received | None:
        try:
            return receiver.take(self._directory, _TAKEN, self._patience.control_s)
        except (OSError, ValueError):
            return None

    def _complete(self, trials: Sequence[Traced]) -> bool:
        if not all(each.services for each in trials):
            return False  # which requests come by where depends on them: nobody knows what is still to come
        found = self._read(trials, self._directory / receiver.BATCHES)
        return all(not missing(each, _own(each, found.spans)) for each in trials)

    def _read(self, trials: Sequence[Traced], path: Path) -> Found:
        found = Found()
        with suppress(FileNotFoundError):
            read.of_otlp(path.read_bytes(), self._offset_ns, found)
        for each in trials:
            for workload, file in each.node_files.items():
                if file.exists():
                    read.of_node(file.read_bytes(), workload, found)
        return found


def _node_files(places: Iterable[ApplicationEnvironment]) -> Iterator[Path]:
    """Of all graph nodes there may be."""
    for place in places:
        for node in place.environment.nodes:
            yield node_file(place.files, node.name)


def _own(trial: Traced, spans: Iterable[ReadSpan]) -> list[ReadSpan]:
    return [span for span in spans if span.trace_id.startswith(trial.tracing.key)]


def roots(trial: Traced) -> list[ReadSpan]:
    """The instrument's own spans: of every traced request that was sent and answered."""
    table, found = trial.requests, []
    sent, done = (table[name].to_numpy(zero_copy_only=False) for name in ("sent_ns", "done_ns"))
    failed = pc.not_equal(table["error"].cast(pa.string()), "").to_numpy(zero_copy_only=False)
    answered = np.flatnonzero(~np.isnan(sent.astype(float)) & ~np.isnan(done.astype(float)))
    for number in answered.tolist():
        if trial.tracing.traces(number):
            found.append(
                ReadSpan(
                    trial.tracing.trace_id(number), root_id(number), "", "client", "instrument", "request",
                    "client", int(sent[number]) + trial.zero_ns, int(done[number]) + trial.zero_ns,
                    "error" if failed[number] else "ok",
                )
            )  # fmt: skip
    return found


def missing(trial: Traced, spans: Iterable[ReadSpan]) -> dict[str, int]:
    """`workload/role` -> how many answered requests lack a span of it, where every request has one."""
    wanted = {span.trace_id for span in roots(trial) if span.status == "ok"}
    expected = {f"{name}/{read.PROXY}" for name in trial.proxies}
    expected |= {f"{name}/{read.SERVICE}" for name in trial.services}
    seen = Counter[str]()
    for trace_id, who in {(span.trace_id, f"{span.workload}/{span.role}") for span in spans}:
        seen[who] += trace_id in wanted
    return {who: len(wanted) - seen[who] for who in sorted(expected) if seen[who] < len(wanted)}


def _collected(
    trial: Traced, found: Found, counts: Received, stepped_ns: int, ended: str, log_tail: str
) -> Collected:
    troubles = found.troubles
    spans = read.each_once([*roots(trial), *_own(trial, found.spans)], troubles)
    flags = [*_flags(trial, missing(trial, spans), troubles, counts)]
    if abs(stepped_ns) > _STEP_NS:
        flags.append(CLOCK_STEPPED(ms=stepped_ns / 1e6))
    if ended:
        flags.append(RECEIVER_ENDED(how=ended))
    return Collected(table_of(trial, spans), tuple(map(str, flags)), log_tail if ended else "")


def _flags(trial: Traced, lacking: Mapping[str, int], troubles: Troubles, counts: Received) -> Iterable[Flag]:
    if lacking:
        yield SPANS_MISSING(
            traces=sum(map(trial.tracing.traces, range(trial.requests.num_rows))),
            missing=max(lacking.values()),
            whose=", ".join(lacking),
        )
    if counts.rejected_spans or counts.rejected_unread or troubles.lost:
        unread = f", and {counts.rejected_unread} batches" if counts.rejected_unread else ""
        yield SPANS_DROPPED(count=counts.rejected_spans + troubles.lost, more=unread)
    if troubles.batches or troubles.spans:
        yield SPANS_MALFORMED(batches=troubles.batches, spans=troubles.spans)


def table_of(trial: Traced, spans: Sequence[ReadSpan]) -> pa.Table:
    """Columns as in `archive.schema.SPANS` but for the trial's id, by time."""
    ordered = sorted(spans, key=lambda span: (span.begun_ns, span.span_id))
    sources = [str(Source(trial.mesh, trial.process_set, span.workload, span.role)) for span in ordered]
    return pa.table(
        {
            "trace_id": pa.array([span.trace_id for span in ordered], pa.string()),
            "span_id": pa.array([span.span_id for span in ordered], pa.string()),
            "parent_id": pa.array([span.parent_id for span in ordered], pa.string()),
            "source": pa.array(sources, pa.string()).dictionary_encode(),
            "name": pa.array([span.name for span in ordered], pa.string()).dictionary_encode(),
            "kind": pa.array([span.kind for span in ordered], pa.string()).dictionary_encode(),
            "begun_ns": pa.array([span.begun_ns - trial.zero_ns for span in ordered], pa.int64()),
            "ended_ns": pa.array([span.ended_ns - trial.zero_ns for span in ordered], pa.int64()),
            "status": pa.array([span.status for span in ordered], pa.string()).dictionary_encode(),
            "attributes": pa.array([span.attributes for span in ordered], pa.string()),
        }
    )
