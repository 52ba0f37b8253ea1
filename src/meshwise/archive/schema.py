"""The tables of a study's directory: every column with its type and meaning; `docs/archive.md` shows it.

Rules:
- Base units, named in the column. Times are int64 nanoseconds from the trial's time 0, the end of its
  warm-up, on one monotonic clock; what happened during warm-up is negative.
- What did not happen is null (no first byte, never sent), never a magic number.
- Columns are added, never renamed; a change of meaning raises SCHEMA_VERSION, and readers refuse what is
  newer than they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from meshwise.study.factor import ColumnKind
from meshwise.study.factors import FACTORS

SCHEMA_VERSION = 2
"""1: first version. 2: the manifest (`manifest.json`), and the study as values (`study.json`)."""
FIRST_WITH_MANIFEST = 2

TEXT = pa.string()
NAME = pa.dictionary(pa.int32(), pa.string())
"""Text that repeats."""
INT = pa.int64()


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    meaning: str
    added: bool = False
    """Came after the first version: null in archives that are older than it."""


@dataclass(frozen=True)
class TableSpec:
    name: str
    about: str
    columns: tuple[Column, ...]

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([(column.name, column.type) for column in self.columns])


ColumnText = tuple[str, pa.DataType, str] | tuple[str, pa.DataType, str, bool]


def _table(name: str, about: str, *columns: ColumnText) -> TableSpec:
    return TableSpec(name, about, tuple(Column(*column) for column in columns))


_TYPES = {
    ColumnKind.INT: INT, ColumnKind.NUMBER: pa.float64(), ColumnKind.TEXT: TEXT, ColumnKind.REPEATED: NAME,
}  # fmt: skip
_CELL: tuple[ColumnText, ...] = (
    ("cell", TEXT, "the cell's name, unique in the study"),
    *(
        (column.name, _TYPES[column.kind], column.meaning, column.added)
        for factor in FACTORS
        for column in factor.columns
    ),
)
_TRIAL = (
    ("trial_id", TEXT, "block and position, counted from 0; `-r1` marks the re-try"),
    ("block", INT, "counts from 0"),
    ("execution", INT, "counts from 0; which life of the processes"),
    ("position", INT, "place in the block's random order, from 0"),
    (
        "role",
        TEXT,
        "`cell`, `aa` (second of the A/A pair), `twin` (on twin processes), `reference` (first arm again), "
        "`alone` (a round of one, for the level without company), `profile` (under profilers), "
        "`count` (instructions and system calls are counted); of the times of these two nothing is made",
    ),
    ("process_set", TEXT, "which of its mesh's sets of processes: `a`, `b`, ..."),
    ("round", INT, "counts from 0 over the study; trials of one round ran at the same time", True),
    ("arm", INT, "place in the round, from 0", True),
)

CELL_COLUMNS = frozenset(name for name, *_ in _CELL)
"""Columns that say which cell it is."""

DESIGN = _table(
    "design", "every trial in the order of the design, written before the first one", *_TRIAL, *_CELL
)

TRIALS = _table(
    "trials",
    "one row per trial that is complete, in the order of running",
    *_TRIAL,
    ("attempt", INT, "0, or 1 for the re-try of a failed trial"),
    *_CELL,
    (
        "status",
        TEXT,
        "`ok`, `failed` (a process ended or refused), `unproven` (posture did not hold; not measured)",
    ),
    ("failure", TEXT, "why it failed or is unproven; empty if ok"),
    ("log_tail", TEXT, "last lines of the log of the process that ended"),
    ("flags", pa.list_(pa.string()), "doubts about a trial that is complete"),
    ("proof", TEXT, "JSON: `passed`, `checks` (name, expected, observed, passed), `facts`"),
    ("posture_file", TEXT, "the posture's own resources, a file under `postures/`; null if unmeasured"),
    ("instrument", TEXT, "JSON: the instrument's report of itself (lateness, CPU, limited_by, ...)"),
    ("started_unix_ns", INT, "wall clock at time 0; null if unmeasured"),
    ("stored_unix_ns", INT, "wall clock when the row was written"),
    ("apply_ns", INT, "time to change the posture"),
    ("prove_ns", INT, "time to prove it"),
    ("measure_ns", INT, "time inside warm-up and measurement"),
    ("requests_rows", INT, "rows of `requests/TRIAL.parquet`; null if there is no such file"),
    ("requests_sha256", TEXT, "digest of that file"),
    ("telemetry_rows", INT, "rows of `telemetry/TRIAL.parquet`; null if there is no such file"),
    ("telemetry_sha256", TEXT, "digest of that file"),
    ("search", TEXT, "of a saturation study: the design's trial_id of the search; else empty", True),
    ("step", INT, "number of the trial in its search, from 0; null if it is in none", True),
    (
        "phase",
        TEXT,
        "`ramp`, `bisect`, `confirm`, `soak`, `again`, `overload`, `down`; else null",
        True,
    ),
    ("result", TEXT, "`held`, `broken`, `invalid`: what the search took the trial for; else empty", True),
    ("reason", TEXT, "why it is broken or invalid; else empty", True),
    ("checks", TEXT, "JSON: what was judged after the trial (name, expected, observed, passed)", True),
    ("files", TEXT, "JSON: SHA-256 of the trial's further files, by name in the directory", True),
    ("spans_rows", INT, "rows of `spans/TRIAL.parquet`; null if there is no such file", True),
    ("spans_sha256", TEXT, "digest of that file", True),
)

REQUESTS = _table(
    "requests",
    "one row per request of one trial, warm-up included; further columns may follow",
    ("trial_id", NAME, "the trial"),
    ("intended_ns", INT, "when it had to be sent"),
    ("sent_ns", INT, "when its first byte was handed to the kernel; null if never"),
    ("first_byte_ns", INT, "when the first byte of the answer was read; null if none came"),
    ("done_ns", INT, "when the answer was complete; null if it never was"),
    ("status", pa.int32(), "HTTP status; for grpc 1000 + grpc-status; 0 if none came, and for tcp"),
    ("bytes", INT, "payload bytes of the answer"),
    ("error", NAME, "kind of failure, empty if none: `connect`, `tls`, `reset`, `timeout`, `goaway`, ..."),
)

REQUESTS_EXTRA = (
    Column("connection", pa.int32(), "which of the instrument's connections carried it"),
    Column("queued", pa.bool_(), "no slot was free at its intended time: the wait is not the instrument's"),
    Column(
        "waited_for",
        NAME,
        "why it was late, else empty: `slot` (all busy), `connection` (being set up or tried again), "
        "`instrument`, `host` (it did not get the CPU)",
    ),
    Column("messages", pa.int32(), "of a gRPC stream: those that went up (client streaming) or came down"),
    Column(
        "client",
        TEXT,
        "`outside`: from outside the mesh (plaintext share), `stranger`: from another namespace "
        "(forbidden share); else `mesh`",
    ),
    Column(
        "forbidden", pa.bool_(), "a posture with authorization forbids it (forbidden share); else null or no"
    ),
    Column("operation", NAME, "what was asked of the bank: `profile`, `transfer`, `notify`, `statement`"),
    Column("request", INT, "number of the request in what its client asks of the bank, from 0"),
)
"""Columns of `requests` that may be there."""

TELEMETRY = _table(
    "telemetry",
    "what samplers saw during one trial; a long table",
    ("trial_id", NAME, "the trial"),
    ("t_ns", INT, "when it was read"),
    ("source", NAME, "who was read: `<mesh>/<process set>/<workload>/<role>`, `host`, ..."),
    (
        "metric",
        NAME,
        "what, unit last: `cpu_ns`, `rss_bytes`, `pss_bytes`, ...; `instructions_total` and `cycles_total` "
        "(user space) where the kernel has a performance counter",
    ),
    ("labels", NAME, "`key=value` pairs joined by commas, sorted; empty if none"),
    ("value", pa.float64(), "in the metric's unit; `_total` and `cpu_ns` count up over the process's life"),
)

SPANS = _table(
    "spans",
    "one row per span of one trial whose requests are traced; absent of others",
    ("trial_id", NAME, "the trial"),
    ("trace_id", TEXT, "32 hexadecimal digits; the last 16 are the request's number, from 0 in its client"),
    ("span_id", TEXT, "16 hexadecimal digits"),
    ("parent_id", TEXT, "the span within which it is; empty for the client's own, which has none"),
    ("source", NAME, "whose: `<mesh>/<process set>/<workload>/<role>`, as in telemetry"),
    ("name", NAME, "as who made it calls it"),
    ("kind", NAME, "`client` (a call, seen by who makes it), `server` (by who answers), `internal`"),
    ("begun_ns", INT, "when it began"),
    ("ended_ns", INT, "when it ended"),
    ("status", NAME, "`ok`, `error`; empty if it is not said"),
    ("attributes", TEXT, "JSON: what else it says of itself"),
)

EVENTS = _table(
    "events",
    "what was done to a trial while it ran, one row per occurrence and target; absent if nothing was",
    ("trial_id", NAME, "the trial"),
    ("t_ns", INT, "when it began, or had to where it did not; for readers of before `begun_ns`"),
    ("kind", NAME, "`rotation`, `policy_push`, `posture_change`, `restart`, `failure`, `skew`; as `event`"),
    ("target", NAME, "what it was done to, as in telemetry's `source`; `<mesh>/<process set>`: to all of it"),
    ("duration_ns", INT, "how long the doing took; 0 where it never was done"),
    (
        "detail",
        TEXT,
        "JSON: what was seen of it: serial numbers, connections kept, refusals, why it was not done",
    ),
    (
        "event",
        NAME,
        "`rotate leaf`, `rotate issuer`, `rotate anchor`, `push policies`, `posture`, `restart proxy`, "
        "`restart controller`, `restart service`, `fail renewal`, `fail controller`, `fail policy`, `skew`",
        True,
    ),
    ("entry", INT, "place of its declaration in the study's `events`, from 0", True),
    ("occurrence", INT, "counts from 0 in the trial; rows of one occurrence differ in their target", True),
    ("intended_ns", INT, "when it had to begin", True),
    ("begun_ns", INT, "when it began; null if it never did (`detail` says why)", True),
    ("done_ns", INT, "when this target had taken it up, or when a failure was over; null if never", True),
)

COUNTS = _table(
    "counts",
    "instructions and system calls of counting trials, per window and process; absent if nothing was counted",
    ("trial_id", NAME, "the trial"),
    ("window", pa.int32(), "counts from 0 over the trial, in the order of time"),
    (
        "kind",
        NAME,
        "`warmup` (not used), `requests` (on kept connections), `idle` (nothing was asked), `fresh` (new "
        "connections, full handshakes), `resumed` (new connections, resumed sessions)",
    ),
    ("source", NAME, "whose count: `<mesh>/<process set>/<workload>/<role>`"),
    ("counter", NAME, "what counted: `callgrind`, `perf`; `fake` if nothing was counted"),
    ("metric", NAME, "`instructions` (in user mode), `cycles`, `system_calls`"),
    ("name", NAME, "of the system call, else empty"),
    ("value", INT, "how many in the window"),
    ("requests", INT, "answered in the window, over all connections"),
    (
        "connections",
        INT,
        "kept connections that carried them; of `fresh` and `resumed`: opened in the window",
    ),
    ("duration_ns", INT, "of the window"),
)

FUNCTIONS = _table(
    "functions",
    "where a sidecar executed its instructions, per counting trial; absent if the counter tells no functions",
    ("trial_id", NAME, "the trial"),
    ("kind", NAME, "`requests` or `idle`: all windows of this kind together"),
    ("source", NAME, "whose: `<mesh>/<process set>/<workload>/<role>`"),
    ("binary", NAME, "path of the program or library; empty where the counter does not know it"),
    (
        "function",
        NAME,
        "demangled; empty for all that has no symbol in this binary, `(rest)` for what is not listed",
    ),
    ("value", INT, "instructions in the function itself, without those that it calls"),
    ("requests", INT, "answered in these windows"),
    ("duration_ns", INT, "of these windows"),
)

PROFILES = _table(
    "profiles",
    "stacks that profilers saw, per profiled trial; absent if there were none",
    ("trial_id", NAME, "the trial"),
    ("source", NAME, "whose: `<mesh>/<process set>/<workload>/<role>`"),
    ("tool", NAME, "`perf`; `py-spy` (Python programs)"),
    ("hertz", INT, "how often it looked, per second of the process's CPU time"),
    ("thread", NAME, "its name; empty where the tool tells none"),
    ("stack", TEXT, "frames joined by `;`, the outermost first; a program or library in brackets: no symbol"),
    ("samples", INT, "how often this stack was seen"),
)

PROTECTION = _table(
    "protection",
    "one row per try of an attempt against a posture; absent if `meshwise protect` was not run",
    ("mesh", NAME, "`none`, `istio`, `linkerd`"),
    ("posture", NAME, "its name, as `posture` of a cell"),
    ("protocol", NAME, "what the services spoke"),
    ("attempt", NAME, "its key (docs/protection.md)"),
    ("execution", pa.int32(), "counts from 0; which life of the processes, with keys of its own"),
    ("try", pa.int32(), "counts from 0 within the execution"),
    ("outcome", NAME, "`stopped`, `let_through`, `not_applicable`, `undecided`"),
    ("evidence", TEXT, "JSON: `status`, `reason`, `counted`, `wire`, `harm`, as far as there are any"),
    ("duration_ns", INT, "how long the try took; 0 if it was not made"),
)

OF_A_TRIAL = (REQUESTS, TELEMETRY, SPANS)
"""Tables of which each trial has a file of its own."""

TABLES = (DESIGN, TRIALS, REQUESTS, TELEMETRY, SPANS, EVENTS, COUNTS, FUNCTIONS, PROFILES, PROTECTION)


def conform(table: pa.Table, spec: TableSpec, trial_id: str | None = None) -> pa.Table:
    """`table` with the spec's columns first, in its types; `trial_id` fills that column. Others stay.

    Raises ValueError naming the column when one is missing or does not fit.
    """
    arrays, names = [], []
    for column in spec.columns:
        if column.name == "trial_id" and trial_id is not None:
            indices = pa.DictionaryArray.from_arrays(
                pa.repeat(pa.scalar(0, pa.int32()), table.num_rows), [trial_id]
            )
            arrays.append(pa.chunked_array([indices]))
        elif column.name not in table.column_names and column.added:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, column.type)]))
        elif column.name not in table.column_names:
            raise ValueError(f"table `{spec.name}` lacks the column `{column.name}`")
        else:
            arrays.append(_cast(table.column(column.name), column, spec))
        names.append(column.name)
    for name in table.column_names:
        if name not in names:
            arrays.append(table.column(name))
            names.append(name)
    return pa.table(arrays, names=names)


def _cast(values: pa.ChunkedArray, column: Column, spec: TableSpec) -> pa.ChunkedArray:
    if values.type == column.type:
        return values
    try:
        if column.type == NAME and not pa.types.is_dictionary(values.type):
            return values.cast(pa.string()).dictionary_encode()
        return values.cast(column.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"column `{column.name}` of table `{spec.name}`: {error}") from error
