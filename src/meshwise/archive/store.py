"""The one writer of a study's directory (docs/archive.md).

Rules of this file:
- A trial is complete when its row is in `trials.parquet`; its own files are durable before that.
- Nothing is ever half there under its own name (`core.files`); what a killed run left aside, or
  stored without a row, is cleaned away on resume.
- Every content that a file may have is named in `manifest.json` before the file has it.
- `design.parquet` is written last on creation: without it a directory is not yet an archive.
- What could prevent writing (space, permission, another run, another study) is found before a trial starts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from meshwise import __version__
from meshwise.archive.contents import MOST_BYTES, table_of
from meshwise.archive.lock import LOCK_NAME, ArchiveLock
from meshwise.archive.manifest import ABSENT, MANIFEST_NAME, Manifest, digest_of
from meshwise.archive.outcome import TrialOutcome as TrialOutcome
from meshwise.archive.outcome import TrialStatus as TrialStatus
from meshwise.archive.read import ArchiveReader
from meshwise.archive.resolved import STUDY_VALUES_NAME, to_values
from meshwise.archive.rows import design_table, outcome_row, trial_of, trials_table
from meshwise.archive.schema import EVENTS, REQUESTS, SCHEMA_VERSION, TELEMETRY, TableSpec, conform
from meshwise.core import messages
from meshwise.core.files import ASIDE, Folder, disk_troubles, free_bytes
from meshwise.core.units import format_size
from meshwise.study.design.estimate import disk_bytes
from meshwise.study.load.trace import TRACES
from meshwise.study.model import Study, Trial

log = logging.getLogger(__name__)

CHECKED_ENVIRONMENT = (
    ("testbed",),
    ("machine", "hostname"),
    ("machine", "kernel"),
    ("machine", "cpu_model"),
    ("machine", "cpus"),
    ("privileged",),
    ("workers",),
    ("proxies",),
)
"""Facts of environment.json that must not change between the trials of one study; load and pressure may."""

PROBE_NAME = ".probe"
FAILURES = "failures"
POSTURES = "postures"
OWN_NAMES = {
    "study.yaml",
    STUDY_VALUES_NAME,
    MANIFEST_NAME,
    "environment.json",
    "trials.parquet",
    "requests",
    "telemetry",
    "postures",
    TRACES,
    LOCK_NAME,
    PROBE_NAME,
}
"""What an interrupted creation may have left."""


class Archive:
    """An open archive, held by one run. A context manager; made by `start`."""

    def __init__(self, folder: Folder, lock: ArchiveLock, trials: pa.Table, digests: dict[str, str]) -> None:
        self.directory = folder.path
        self._folder = folder
        self._lock = lock
        self._trials = trials
        self._digests = digests
        """Of the files that the manifest names, as they are now."""
        self._statuses = {
            trial_id: TrialStatus(status)
            for trial_id, status in zip(
                trials["trial_id"].to_pylist(), trials["status"].to_pylist(), strict=True
            )
        }

    @classmethod
    def start(
        cls,
        directory: Path,
        study: Study,
        trials: Sequence[Trial],
        environment: Mapping[str, object],
        *,
        resume: bool = False,
    ) -> Self:
        """Create the archive, or with `resume` continue one (creating it if its creation was cut short).

        Raises MW601, MW603 (the directory holds something), MW602 (a live run has it), MW605, MW611
        (resumed with another study or elsewhere), MW606, MW607 (cannot write, no space).
        """
        with disk_troubles(directory):
            found = directory.is_dir() and (directory / "design.parquet").exists()
            if found and not resume:
                raise messages.ARCHIVE_EXISTS.error(str(directory))
            if not found and directory.exists():
                _require_empty(directory)
            directory.mkdir(parents=True, exist_ok=True)
            with ExitStack() as held:
                folder = held.enter_context(Folder.open(directory))
                lock = held.enter_context(ArchiveLock(folder))
                _probe(folder)
                if found:
                    stored, digests = _continue(folder, study, trials, environment)
                    _require_space(directory, study, max(0, len(trials) - stored.num_rows))
                else:
                    _require_space(directory, study, len(trials))
                    stored, digests = _create(folder, study, trials, environment)
                held.pop_all()  # all is well: they are the archive's
        return cls(folder, lock, stored, digests)

    def statuses(self) -> Mapping[str, TrialStatus]:
        """How each stored trial ended, by trial_id."""
        return dict(self._statuses)

    def history(self) -> Iterator[tuple[Trial, TrialStatus, str]]:
        """Every stored trial with how it ended and what its search took it for, in the order of storing."""
        for row in self._trials.to_pylist():
            yield trial_of(row), TrialStatus(row["status"]), row["result"] or ""

    def add(self, *outcomes: TrialOutcome) -> None:
        """Store the trials of one round; on return they are on the disk. Their rows appear at once. Raises
        MW607 when that is full, MW612 for tables that are not as the schema says."""
        for outcome in outcomes:
            if outcome.trial.trial_id in self._statuses:
                raise messages.ALREADY_STORED.error(str(self.directory), trial_id=outcome.trial.trial_id)
        with disk_troubles(self.directory):
            rows = [outcome_row(outcome, self._keep(outcome)) for outcome in outcomes]
            growing = self._with_events(outcomes)
            trials = pa.concat_tables([self._trials, trials_table(rows)]).combine_chunks()
            self._replace(growing | {"trials.parquet": encode(trials)})
        self._trials = trials
        self._statuses |= {outcome.trial.trial_id: outcome.status for outcome in outcomes}

    def _keep(self, outcome: TrialOutcome) -> dict[str, Any]:
        """The trial's own files; the columns about them."""
        files = self._keep_state(outcome)
        posture = self._keep_resources(outcome, files)
        columns: dict[str, Any] = {"posture_file": posture, "files": json.dumps(files)}
        if outcome.measurement is not None:
            columns |= self._keep_table(outcome.trial.trial_id, outcome.measurement.requests, REQUESTS)
            columns |= self._keep_table(outcome.trial.trial_id, outcome.measurement.telemetry, TELEMETRY)
        return columns

    def _replace(self, growing: Mapping[str, memoryview]) -> None:
        """Files that grow with the study: first the manifest, which names what they are and what they are
        about to be, then they, `trials.parquet` last; so that whatever a crash leaves is named."""
        digests = {name: digest_of(content) for name, content in growing.items()}
        about_to_be = {name: (self._digests.get(name, ABSENT), new) for name, new in digests.items()}
        _keep_manifest(self._folder, self._digests, about_to_be)
        for name, content in growing.items():
            self._folder.write(name, content)
            self._digests[name] = digests[name]

    def close(self) -> None:
        self._lock.close()
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with disk_troubles(self.directory):
                    _keep_manifest(self._folder, self._digests)  # from now on nothing is about to change
        finally:
            self.close()

    def _keep_table(self, trial_id: str, table: pa.Table, spec: TableSpec) -> dict[str, Any]:
        try:
            content = encode(conform(table, spec, trial_id))
        except ValueError as error:
            raise messages.BAD_TABLE.error(
                str(self.directory), trial_id=trial_id, reason=str(error)
            ) from error
        with self._folder.folder(spec.name, make=True) as folder:
            folder.write(f"{trial_id}.parquet", content)
        return {
            f"{spec.name}_rows": table.num_rows,
            f"{spec.name}_sha256": digest_of(content),
        }

    def _with_events(self, outcomes: Sequence[TrialOutcome]) -> dict[str, memoryview]:
        """One file for all trials; what a killed run left of a trial without a row is removed."""
        name = f"{EVENTS.name}.parquet"
        told = [
            conform(outcome.measurement.events, EVENTS, outcome.trial.trial_id)
            for outcome in outcomes
            if outcome.measurement is not None and outcome.measurement.events is not None
        ]
        if not told:
            return {}
        if self._folder.exists(name):
            path, most_bytes = str(self.directory / name), MOST_BYTES[name]
            former = table_of(self._folder.read(name, most_bytes), EVENTS, path)
            complete = pc.is_in(
                former["trial_id"].cast(pa.string()), pa.array(list(self._statuses), pa.string())
            )
            told = [former.filter(complete), *told]
        new = pa.concat_tables(told).unify_dictionaries()
        return {name: encode(new.combine_chunks())} if new.num_rows else {}

    def _keep_state(self, outcome: TrialOutcome) -> dict[str, str]:
        """`failures/TRIAL/`: what there was to see of a trial that did not end well. Returns the digests."""
        if not outcome.state:
            return {}
        trial_id, files = outcome.trial.trial_id, {}
        with self._folder.folder(FAILURES, make=True) as failures:
            failures.remove_tree(trial_id)  # of a run that was killed before it was complete
            with failures.folder(trial_id, make=True) as folder:
                for name, text in outcome.state.items():
                    folder.write(name, text.encode())
                    files[f"{FAILURES}/{trial_id}/{name}"] = digest_of(text.encode())
        return files

    def _keep_resources(self, outcome: TrialOutcome, files: dict[str, str]) -> str | None:
        """One file per different text; most trials share a few. Adds the digest to `files`."""
        if not outcome.resources:
            return None
        text = outcome.resources.encode()
        cell = outcome.trial.cell
        name = f"{cell.mesh}-{cell.posture.name}-{digest_of(text)[:12]}.yaml"
        with self._folder.folder(POSTURES, make=True) as folder:
            if not folder.exists(name):
                folder.write(name, text)
        files[f"{POSTURES}/{name}"] = digest_of(text)
        return name


def encode(table: pa.Table) -> memoryview:
    """The table as a Parquet file. Integers are stored as differences, which is what times are good for."""
    text = [
        column.name
        for column in table.schema
        if not pa.types.is_integer(column.type) and column.type != pa.float64()
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=text,
        column_encoding={
            column.name: "DELTA_BINARY_PACKED" for column in table.schema if pa.types.is_integer(column.type)
        },
    )
    return memoryview(sink.getvalue())


def _require_empty(directory: Path) -> None:
    if not directory.is_dir():
        raise NotADirectoryError(20, "it is a file, not a directory", str(directory))
    strangers = sorted(
        path.name
        for path in directory.iterdir()
        if path.name.removesuffix(ASIDE) not in OWN_NAMES | {"design.parquet"}
    )
    if strangers:
        raise messages.NOT_EMPTY.error(str(directory), names=", ".join(strangers[:5]))


def _probe(folder: Folder) -> None:
    """Write where the archive will be, so that what forbids it is known now."""
    folder.write(PROBE_NAME, b"x" * 4096)
    folder.remove(PROBE_NAME)


def _require_space(directory: Path, study: Study, missing_trials: int) -> None:
    needed, free = disk_bytes(study, missing_trials), free_bytes(directory)
    if free < needed:
        raise messages.NO_SPACE.error(str(directory), free=format_size(free), needed=format_size(needed))


def _create(
    folder: Folder, study: Study, trials: Sequence[Trial], environment: Mapping[str, object]
) -> tuple[pa.Table, dict[str, str]]:
    """An archive without trials, and the digests of its files. `design.parquet` is written last: with it the
    directory is an archive."""
    for name in (REQUESTS.name, TELEMETRY.name, POSTURES, FAILURES):
        folder.remove_tree(name)
    for name in (REQUESTS.name, TELEMETRY.name, POSTURES):
        folder.folder(name, make=True).close()
    folder.remove("events.parquet", absent=True)
    stored = trials_table([])
    facts = {"schema_version": SCHEMA_VERSION, "meshwise": __version__, **environment}
    design = design_table(trials).replace_schema_metadata({"meshwise": json.dumps(_about(study))})
    contents: dict[str, bytes | memoryview] = {
        "study.yaml": study.source.encode(),
        STUDY_VALUES_NAME: json.dumps(to_values(study), indent=1).encode() + b"\n",
        "environment.json": json.dumps(facts, indent=2).encode() + b"\n",
        "trials.parquet": encode(stored),
        "design.parquet": encode(design),
    }
    digests = {name: digest_of(content) for name, content in contents.items()}
    _keep_trace(folder, study)
    _keep_manifest(folder, digests)
    for name, content in contents.items():
        folder.write(name, content)
    return stored, digests


def _keep_manifest(
    folder: Folder, digests: Mapping[str, str], about_to_be: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    files = {name: (digest,) for name, digest in digests.items()}
    folder.write(MANIFEST_NAME, Manifest(files | dict(about_to_be or {})).encode())


def _keep_trace(folder: Folder, study: Study) -> None:
    """The trace of the load, as it was read: with it the directory says all that was asked."""
    trace = study.trial.shape.trace if study.trial.shape else None
    if trace is None:
        return
    with folder.folder(TRACES, make=True) as traces, Path(trace.path).open("rb") as original:
        found = traces.copy(original, Path(trace.name).name)
    if found != trace.sha256:
        raise messages.BAD_TRACE.error(
            trace.path, what="it was changed since the study was read", remedy="run the study again"
        )


def _trace_facts(study: Study) -> dict[str, str] | None:
    trace = study.trial.shape.trace if study.trial.shape else None
    return {"name": Path(trace.name).name, "sha256": trace.sha256} if trace else None


def _about(study: Study) -> dict[str, object]:
    """What a reader needs beside the rows of the design."""
    return {
        "schema_version": SCHEMA_VERSION,
        "study": study.name,
        "seed": study.seed,
        "level": study.layer,
        "study_sha256": digest_of(study.source.encode()),
        "not_applicable": [{"cell": no.cell.name, "reason": no.reason} for no in study.not_applicable],
        "trace": _trace_facts(study),
    }


def _continue(
    folder: Folder, study: Study, trials: Sequence[Trial], environment: Mapping[str, object]
) -> tuple[pa.Table, dict[str, str]]:
    directory = folder.path
    reader = ArchiveReader.open(directory)
    if reader.study_text != study.source:
        raise messages.OTHER_STUDY.error(
            str(directory), difference="its study.yaml differs from the file given"
        )
    if reader.layer is not study.layer:
        begun = f"with `--level {reader.layer}`" if reader.layer else "without `--level`"
        raise messages.OTHER_STUDY.error(str(directory), difference=f"it was begun {begun}")
    if {trial.cell.graph for trial in reader.design} != {trial.cell.graph for trial in trials}:
        raise messages.OTHER_STUDY.error(
            str(directory), difference="its service graph differs: the graph file was changed since it began"
        )
    if reader.about.get("trace") != _trace_facts(study):
        raise messages.OTHER_STUDY.error(str(directory), difference="the trace was changed since it began")
    if reader.design != tuple(trials):
        raise messages.OTHER_STUDY.error(str(directory), difference="its design differs from the study's")
    differences = _differences(reader.environment, json.loads(json.dumps(environment)))
    if differences:
        raise messages.OTHER_ENVIRONMENT.error(str(directory), differences="; ".join(differences))
    stored = reader.trials_arrow
    _clean(folder, set(stored["trial_id"].to_pylist()))
    digests = dict(reader.digests)
    _keep_manifest(folder, digests)  # an archive of version 1 has one from now on
    return stored.replace_schema_metadata(None), digests


def _differences(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Checked facts that both know and that are not equal."""
    found = []
    for keys in CHECKED_ENVIRONMENT:
        before, after = _fact(former, keys), _fact(now, keys)
        if before is not None and after is not None and before != after:
            found.append(f"{'.'.join(keys)} was {json.dumps(before)}, is {json.dumps(after)}")
    return found


def _fact(facts: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = facts
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _clean(folder: Folder, complete: set[str]) -> None:
    """Remove what a killed run left: files written aside, and tables of trials without a row."""

    def left(name: str) -> bool:
        return name.endswith(ASIDE)

    def left_or_without_a_row(name: str) -> bool:
        return left(name) or (name.endswith(".parquet") and name.removesuffix(".parquet") not in complete)

    _remove(folder, left)
    for name in (REQUESTS.name, TELEMETRY.name, POSTURES, TRACES, FAILURES):
        if folder.exists(name):
            with folder.folder(name) as inner:
                _remove(inner, left_or_without_a_row if name in (REQUESTS.name, TELEMETRY.name) else left)


def _remove(folder: Folder, unwanted: Callable[[str], bool]) -> None:
    for name in filter(unwanted, folder.names()):
        log.info("removing %s, left by an interrupted run", folder.path / name)
        folder.remove(name)
