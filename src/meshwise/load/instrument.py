"""A whole run: check, connect, agree on a start, run, report. Owns processes, files and signals.

The forked processes end with the first one (PR_SET_PDEATHSIG) and report to it through pipes: `ready`
(or why not) up, the start time down, the facts up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from meshwise.core import messages
from meshwise.core.errors import Fault, MeshwiseError
from meshwise.core.linux import allow_open_files, die_with_parent
from meshwise.load.addresses import answering
from meshwise.load.dealt import Dealt, times_of_each
from meshwise.load.engine import Engine
from meshwise.load.fields import check_request
from meshwise.load.files import RunFiles
from meshwise.load.lane import RunFacts, Share
from meshwise.load.networks import Networks
from meshwise.load.patterns import wrong_patterns
from meshwise.load.records import MOST_ADDRESSES, RecordFile, open_columns, rows_for
from meshwise.load.report import LoadReport, report
from meshwise.load.schedule import Times, share_of
from meshwise.load.setups import SetupLog
from meshwise.load.spec import LoadSpec
from meshwise.load.wire.seam import ErrorKind
from meshwise.study.model import Arrivals
from meshwise.study.protocol import Streaming

Say = Callable[[dict[str, object]], None]

CONNECT_EACH_NS = 1_000_000
"""More than the time for one, for each connection."""
START_MARGIN_NS = 20_000_000
CLOSED_ROWS_PER_S = 500_000
"""Above what one process can do; the file is sparse, so unused rows take no space."""
_SPARE_DESCRIPTORS = 24
_ENDING_DESCRIPTORS = 512
"""Of connections that are replaced already and not closed yet."""


def check_descriptors(*specs: LoadSpec) -> None:
    """Raises the soft limit as far as needed. Raises MW307, before anything starts, where it may not be so
    high."""
    processes = specs[0].processes
    needed = _SPARE_DESCRIPTORS + 4 * processes
    for spec in specs:
        own = -(-spec.connections // processes)
        ending = spec.requests_per_connection or spec.churn_per_s
        needed += own + (min(own + _SPARE_DESCRIPTORS, _ENDING_DESCRIPTORS) if ending else 0)
    if (allowed := allow_open_files(needed)) < needed:
        asked = sum(spec.connections for spec in specs)
        raise messages.TOO_FEW_DESCRIPTORS.error(needed=asked, limit=allowed, wanted=needed)


def run_dealt(dealt: Dealt, files: Sequence[RunFiles], say: Say) -> list[LoadReport]:
    """Runs one stream that is dealt to its targets, each of which has files of its own, and writes these.
    Raises MeshwiseError."""
    check(dealt)
    check_descriptors(*dealt.targets)
    dealt = dataclasses.replace(dealt, targets=tuple(map(_reachable, dealt.targets)))
    with _forked(dealt, files) as others, _Part(dealt, files, 0) as part:
        part.connect()
        for other in others:
            other.wait_ready()
        start_ns = time.monotonic_ns() + START_MARGIN_NS
        for other in others:
            other.start(start_ns)
        part.followed_by(others)
        say({"event": "started", "start_ns": start_ns})
        of_processes = [part.run(start_ns)]
        of_processes += [other.facts() for other in others]
    reports = []
    for spec, own, facts in zip(dealt.targets, files, zip(*of_processes, strict=True), strict=True):
        reports.append(report(spec, [open_columns(path) for path in own.records], facts))
        own.write_report(reports[-1].to_json())
    return reports


def check(dealt: Dealt) -> None:
    """Raises MW303 for values that make no run."""
    for is_wrong, what in dealt.wrong():
        if is_wrong:
            raise messages.BAD_LOAD_OPTION.error(what=what, remedy="change that option")
    for spec in dealt.targets:
        check_spec(spec)


_KEY = re.compile(r"(?!0{16})[0-9a-f]{16}")


def check_spec(spec: LoadSpec) -> None:
    """Raises MW303 for values that make no run."""
    wrong = [
        (spec.connections < 1 or spec.connections > 65_535, "connections must be 1 to 65535"),
        (len(spec.targets) > MOST_ADDRESSES, f"at most {MOST_ADDRESSES} addresses can be tried"),
        (spec.streams < 1, "streams must be at least 1"),
        (
            spec.protocol in ("http1", "tcp") and spec.streams != 1,
            f"{spec.protocol} has one stream per connection",
        ),
        (max(spec.body_bytes, spec.response_bytes) >= 2**31, "a payload must be smaller than 2 GiB"),
        (not 1 <= spec.processes <= 64, "processes must be 1 to 64"),
        (spec.script is not None and spec.processes > 1, "a script is run by one process"),
        (spec.processes > spec.connections, "every process needs a connection of its own"),
        (spec.duration_ns <= 0, "the duration must be positive"),
        (spec.warmup_ns < 0 or spec.spin_ns < 0, "warm-up and spin cannot be negative"),
        (spec.timeout_ns <= 0, "the time-out must be positive"),
        (spec.arrivals is not Arrivals.CLOSED and not spec.rate_rps > 0, "the rate must be positive"),
        (
            _too_few(spec),
            f"the measured time is shorter than the time between two requests at {spec.rate_rps:g}/s",
        ),
        (spec.shape is not None and spec.arrivals is Arrivals.CLOSED, "a closed loop has no rate to shape"),
        (spec.trace is not None and spec.arrivals is Arrivals.CLOSED, "a closed loop replays no trace"),
        (spec.think is not None and spec.arrivals is not Arrivals.CLOSED, "only a closed loop thinks"),
        (not 0 <= spec.traced_share <= 1, "the share that is traced is from 0 to 1"),
        (spec.traced_share > 0 and not _KEY.fullmatch(spec.trace_key), "a trace key is 16 digits, not all 0"),
        (spec.traced_share > 0 and spec.processes > 1, "a run that is traced has one process"),
        (spec.traced_share > 0 and spec.protocol == "tcp", "opaque TCP has no place for a trace context"),
        (not 0 <= spec.other_share <= 1, "the share with other headers is from 0 to 1"),
        (spec.other_share > 0 and spec.processes > 1, "a run with two kinds of request has one process"),
        (spec.other_share > 0 and spec.protocol == "tcp", "opaque TCP has no headers"),
        (spec.other_share > 0 and spec.script is not None, "a script has one set of headers"),
        (
            not _cpus(spec) <= os.sched_getaffinity(0),
            f"not all of the CPUs {sorted(_cpus(spec))} (--cpu) are there for this process",
        ),
    ]
    for is_wrong, what in [*wrong, *wrong_patterns(spec)]:
        if is_wrong:
            raise messages.BAD_LOAD_OPTION.error(what=what, remedy="change that option")
    check_request(spec)


def _too_few(spec: LoadSpec) -> bool:
    """Of a rate that stands still; shapes and traces are looked at where they are made."""
    still = spec.arrivals is not Arrivals.CLOSED and spec.shape is None and spec.trace is None
    return still and 0 < spec.rate_rps * spec.duration_ns < 1e9


def _reachable(spec: LoadSpec) -> LoadSpec:
    """Of a name with several addresses: those that answer come first; with `spread` there are no others.
    Raises MW306 when none does."""
    if len(spec.targets) < 2:
        return spec
    patience_s = min(spec.timeout_ns, spec.connect_ns) / 1e9
    networks = Networks([spec.network])
    try:
        networks.enter(spec.network)
        found, failed = answering(spec.targets, spec.port, every=spec.spread, patience_s=patience_s)
    finally:
        networks.close()
    if not found:
        why = "; ".join(f"{address}: {reason}" for address, reason in failed.items())
        raise _cannot_connect(spec, ErrorKind.CONNECT.label, why)
    others = [] if spec.spread else [each for each in spec.targets if each not in found]
    return dataclasses.replace(spec, address=found[0], addresses=(*found, *others))


def _cannot_connect(spec: LoadSpec, kind: str, why: str) -> MeshwiseError:
    where = spec.address if len(spec.targets) < 2 else spec.authority.rpartition(":")[0] or spec.authority
    return messages.CANNOT_CONNECT.error(
        where=f"[{where}]:{spec.port}" if ":" in where else f"{where}:{spec.port}",
        kind=kind,
        why=why,
        protocol=spec.protocol,
        tls_hint=" over TLS, and that CA, certificate and key are right" if spec.tls else "",
    )


def _cpus(spec: LoadSpec) -> set[int]:
    return set() if spec.cpu is None else set(range(spec.cpu, spec.cpu + spec.processes))


@dataclass(eq=False)
class CannotConnect(MeshwiseError):
    """MW306 of the first target that has no connection; with all of them."""

    targets: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Number of a target -> why it has none."""


class _Part:
    """One process's share of the run."""

    def __init__(self, dealt: Dealt, files: Sequence[RunFiles], index: int) -> None:
        self._targets = dealt.targets
        spec = dealt.first
        if spec.cpu is not None:
            os.sched_setaffinity(0, {spec.cpu + index})
        whole = [None] if spec.arrivals is Arrivals.CLOSED else times_of_each(dealt)
        self._times = [None if times is None else share_of(times, index, spec.processes) for times in whole]
        shares = []
        with ExitStack() as stack:
            self._records = []
            for each, own, times in zip(dealt.targets, files, self._times, strict=True):
                self._records.append(_record_file(each, own.records[index], times))
                stack.callback(self._records[-1].close)
                # Users of different processes do not think in step.
                own_spec = dataclasses.replace(each, seed=each.seed + index) if each.think else each
                shares.append(Share(own_spec, len(range(index, each.connections, each.processes))))
            self._slots = sum(share.slots for share in shares)
            self._engine = Engine(shares)
            stack.push(self._engine.__exit__)
            self._stack = stack.pop_all()
        self._followers: list[_Other] = []

    def __enter__(self) -> _Part:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())
        return self

    def followed_by(self, others: list[_Other]) -> None:
        """They stop when this one does: what ends a run knows the first process only."""
        self._followers = others

    def _stop(self) -> None:
        self._engine.stop()
        for other in self._followers:
            other.stop()

    def __exit__(self, *exc: object) -> None:
        self._followers = []
        self._stack.close()

    def connect(self) -> None:
        """Raises CannotConnect when to one of the targets no connection could be made."""
        patience_ns = max(spec.connect_ns for spec in self._targets)
        failures = self._engine.connect(patience_ns + CONNECT_EACH_NS * self._slots)
        refused = {
            number: _cannot_connect(spec, failure.kind.label, str(failure))
            for number, (spec, failure) in enumerate(zip(self._targets, failures, strict=True))
            if failure is not None
        }
        if refused:
            first = next(iter(refused.values()))
            facts = {each.name: getattr(first, each.name) for each in dataclasses.fields(first)}
            raise CannotConnect(**facts, targets={number: each.what for number, each in refused.items()})

    def run(self, start_ns: int) -> list[RunFacts]:
        for spec, records, times in zip(self._targets, self._records, self._times, strict=True):
            records.begin(times, start_ns, spec.warmup_ns)
        facts = self._engine.run(self._records, start_ns)
        for spec, records, fact in zip(self._targets, self._records, facts, strict=True):
            if len(spec.targets) > 1:
                on_demand = spec.requests_per_connection > 0
                records.note_addresses(fact.setups.attempts, on_demand=on_demand)
        return facts


def _record_file(spec: LoadSpec, path: Path, times: Times | None) -> RecordFile:
    """Of a closed loop with as many rows as it may fill."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if times is None:
            span_ns = spec.warmup_ns + spec.duration_ns
            rows = rows_for(path, int(span_ns / 1e9 * CLOSED_ROWS_PER_S) + 1)
        else:
            rows = times.size
        streams = spec.streaming is not Streaming.NONE
        return RecordFile(path, rows, reserve=times is not None, messages=streams, addresses=spec.targets)
    except OSError as error:
        raise messages.CANNOT_WRITE_OUTPUT.error(where=str(path.parent), why=str(error)) from error


# --- more than one process ---------------------------------------------------------------------


@dataclass
class _Other:
    """A forked process, seen from the first one."""

    pid: int
    receive: int
    send: int
    buffer: bytes = b""

    def _line(self) -> dict[str, object]:
        while b"\n" not in self.buffer:
            data = os.read(self.receive, 1 << 16)
            if not data:
                raise messages.INSTRUMENT_DIED.error(
                    ending="closed its pipe", tail="a forked process ended early"
                )
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "code" in answer:
            answer["fault"] = Fault(str(answer["fault"]))
            raise MeshwiseError(**answer)
        return answer

    def wait_ready(self) -> None:
        self._line()

    def start(self, start_ns: int) -> None:
        os.write(self.send, json.dumps({"start_ns": start_ns}).encode() + b"\n")

    def stop(self) -> None:
        """Not waited for yet, so no other process has its number."""
        os.kill(self.pid, signal.SIGTERM)

    def facts(self) -> list[RunFacts]:
        """Of each target."""
        found = []
        for values in cast(list[dict[str, Any]], self._line()["facts"]):
            setups = SetupLog.from_values(values.pop("setups"))
            found.append(RunFacts(setups=setups, **values))
        return found


@contextlib.contextmanager
def _forked(dealt: Dealt, files: Sequence[RunFiles]) -> Iterator[list[_Other]]:
    others: list[_Other] = []
    try:
        for index in range(1, dealt.first.processes):
            others.append(_fork(dealt, files, index))
        yield others
    finally:
        for other in others:
            os.close(other.send)
            os.close(other.receive)
        for other in others:
            other.stop()
            os.waitpid(other.pid, 0)


def _fork(dealt: Dealt, files: Sequence[RunFiles], index: int) -> _Other:
    up, down = os.pipe(), os.pipe()
    pid = os.fork()
    if pid:
        os.close(up[1])
        os.close(down[0])
        return _Other(pid, up[0], down[1])
    status = 1
    try:
        die_with_parent()  # one that is gone already is noticed by its closed pipes
        os.close(up[0])
        os.close(down[1])
        status = _be_other(dealt, files, index, up[1], down[0])
    finally:
        os._exit(status)


def _be_other(dealt: Dealt, files: Sequence[RunFiles], index: int, up: int, down: int) -> int:
    def tell(value: dict[str, object]) -> None:
        os.write(up, json.dumps(value).encode() + b"\n")

    try:
        with _Part(dealt, files, index) as part:
            part.connect()
            tell({})
            line = os.read(down, 4096)
            if not line:
                return 0
            facts = part.run(json.loads(line)["start_ns"])
            tell({"facts": [{**vars(each), "setups": each.setups.to_values()} for each in facts]})
    except MeshwiseError as error:
        tell({name: getattr(error, name) for name in ("code", "fault", "what", "remedy", "where")})
        return error.exit_status
    return 0
