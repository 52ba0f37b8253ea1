"""The one reader of a study's directory: checks what it opens, then gives tables lazily.

Everything is compared with its digest (`archive.manifest`; a trial's own files with the digests in its row),
its sizes with what is expected before it is decoded (`archive.decode`), its types, nulls and ranges with the
schema, and the trials with the design (`archive.agreement`). So that what was truncated, altered or exchanged
is named (MW608, MW609) and never becomes a number, nor a traceback. Archives of version 1 have no manifest:
of them the trials' requests and telemetry have digests, the rest is checked as far as it can be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa

from meshwise.archive.agreement import check_design, check_trials
from meshwise.archive.contents import MOST_BYTES, contents_of, held, opened, read, table_of, text_of
from meshwise.archive.decode import (
    MOST_ROW_BYTES,
    MOST_SPAN_BYTES,
    MOST_TABLE_BYTES,
    check_sizes,
    decode,
    require_one_trial,
)
from meshwise.archive.documents import check_about, check_environment, damaged, files_of, json_object
from meshwise.archive.event_rows import whole_events
from meshwise.archive.manifest import IMPORTED_NAME, MANIFEST_NAME, Manifest, digest_of
from meshwise.archive.outcome import ProtectionTry
from meshwise.archive.resolved import STUDY_VALUES_NAME, of_values
from meshwise.archive.rows import trial_of, tries_of, with_rounds
from meshwise.archive.schema import (
    COUNTS,
    DESIGN,
    EVENTS,
    FIRST_WITH_MANIFEST,
    FUNCTIONS,
    OF_A_TRIAL,
    PROFILES,
    PROTECTION,
    REQUESTS,
    SCHEMA_VERSION,
    SPANS,
    TELEMETRY,
    TRIALS,
    TableSpec,
)
from meshwise.core import messages
from meshwise.core.files import Folder
from meshwise.study.file.read import parse_study
from meshwise.study.load.trace import TRACES
from meshwise.study.model import Arrangement, Cell, Layer, Role, ServiceGraph, Study, Trial

POSTURES = "postures"
_AN_IMPORT = "it is an import, which `query` and `report` read"


@dataclass(frozen=True)
class ArchiveReader:
    """A study's directory, opened for reading; also while a run still writes to it."""

    directory: Path
    study_text: str
    environment: Mapping[str, Any]
    about: Mapping[str, Any]
    """`seed`, `study_sha256`, `not_applicable` (cell, reason)."""
    design: tuple[Trial, ...]
    trials_arrow: pa.Table
    """`trials.parquet` as `archive.schema.TRIALS` says."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files above; with those in the trials' rows of all that findings are made from."""
    study_values: Mapping[str, Any] | None = field(default=None, repr=False)
    """`study.json`; None in archives of version 1."""
    manifest: Manifest | None = field(default=None, repr=False)
    verified: bool = True

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True) -> Self:
        """Raises MW604 (no archive), MW610 (newer), MW608, MW609 (a file is damaged or altered).

        `verify=False` skips the digests of the trials' own files.
        """
        with held(directory) as folder:
            if not folder.exists("design.parquet"):
                imported = folder.exists(IMPORTED_NAME)
                reason = _AN_IMPORT if imported else "there is no design.parquet"
                raise messages.NOT_AN_ARCHIVE.error(str(directory), reason=reason)
            contents, manifest = contents_of(folder)
        digests = {name: digest_of(content) for name, content in contents.items()}
        path = {name: str(directory / name) for name in (*MOST_BYTES, "events.parquet")}
        design = table_of(contents["design.parquet"], DESIGN, path["design.parquet"])
        design = with_rounds(design, design)
        about = _about(path["design.parquet"], design)
        if manifest is None and about["schema_version"] >= FIRST_WITH_MANIFEST:
            raise damaged(path[MANIFEST_NAME], "it is not there")
        if digests["study.yaml"] != about["study_sha256"]:
            raise messages.ALTERED.error(
                path["study.yaml"], difference="its digest is not the one in design.parquet"
            )
        environment = json_object(contents["environment.json"], path["environment.json"])
        check_environment(environment, path["environment.json"])
        trials = table_of(contents["trials.parquet"], TRIALS, path["trials.parquet"])
        trials = with_rounds(trials, design)
        planned = design.to_pylist()
        check_design(planned, path["design.parquet"])
        check_trials(trials.to_pylist(), planned, path["trials.parquet"])
        values = contents.get(STUDY_VALUES_NAME)
        reader = cls(
            directory=directory,
            study_text=text_of(contents["study.yaml"], path["study.yaml"]),
            environment=environment,
            about=about,
            design=_design(path["design.parquet"], planned),
            trials_arrow=trials,
            digests=digests,
            study_values=None if values is None else json_object(values, path[STUDY_VALUES_NAME]),
            manifest=manifest,
            verified=verify,
        )
        if verify:
            reader.verify()
        return reader

    def verify(self) -> None:
        """Compare the files of every trial with their digests. Raises MW609 naming all that differ."""
        troubles = []
        with held(self.directory) as folder:
            for name, digest, most_bytes in (*self._trace(), *self._files()):
                if trouble := _difference(folder, name, digest, most_bytes):
                    troubles.append((str(self.directory / name), trouble))
        if troubles:
            first = troubles[0]
            more = "".join(f"\n{path}: {difference}" for path, difference in troubles[1:])
            raise messages.ALTERED.error(first[0], difference=first[1] + more)

    def trials(self) -> pl.DataFrame:
        """One row per complete trial, in the order of running."""
        frame = pl.from_arrow(self.trials_arrow)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def timed(self) -> pl.DataFrame:
        """The same without trials that count or are profiled, whose times say nothing: what analyses of time
        read."""
        untimed = [str(role) for role in Role if not role.timed]
        return self.trials().filter(~pl.col("role").is_in(untimed))

    @property
    def timed_design(self) -> tuple[Trial, ...]:
        """The design without the trials that count or are profiled."""
        return tuple(trial for trial in self.design if trial.role.timed)

    @property
    def counting_design(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.design if trial.role is Role.COUNT)

    def cells(self) -> tuple[Cell, ...]:
        """The cells of the design, each once, in the order of the study file."""
        order = {cell.name: cell for cell in self.study().cells}
        return tuple(order.values())

    def study(self) -> Study:
        """The study as it was asked; its not-applicable cells as the meshes said then."""
        traces = self.directory / TRACES
        if self.study_values is None:
            return self._study_of_version_1(traces)
        try:
            return of_values(self.study_values, self.study_text, traces)
        except (KeyError, TypeError, ValueError, RecursionError, pa.ArrowException) as error:
            what = f"it is no study: {type(error).__name__}: {str(error).splitlines()[0]}"
            raise damaged(str(self.directory / STUDY_VALUES_NAME), what) from error

    def _study_of_version_1(self, traces: Path) -> Study:
        """Version 1 stored the YAML only, so today's grammar reads it."""
        reasons = {entry["cell"]: entry["reason"] for entry in self.about.get("not_applicable") or []}
        return parse_study(
            self.study_text,
            str(self.directory / "study.yaml"),
            lambda cell: reasons.get(cell.name),
            self.layer,
            next((trial.cell.graph for trial in self.design if trial.cell.graph), None),
            traces=traces if self.about.get("trace") else None,
            arrangement=Arrangement.APART,  # there were no rounds then
        )

    @property
    def layer(self) -> Layer | None:
        """The layer that the study was cut to when it was run."""
        return Layer(name) if (name := self.about.get("level")) else None

    def scan_requests(self, trial_ids: Iterable[str] | None = None) -> pl.LazyFrame:
        """The request rows of these trials (default: of all), in no promised order across trials."""
        return self._scan(REQUESTS, trial_ids)

    def scan_telemetry(self, trial_ids: Iterable[str] | None = None) -> pl.LazyFrame:
        return self._scan(TELEMETRY, trial_ids)

    def scan_spans(self, trial_ids: Iterable[str] | None = None) -> pl.LazyFrame:
        return self._scan(SPANS, trial_ids)

    @property
    def traced(self) -> tuple[str, ...]:
        """Ids of the trials that have spans, in the order of running."""
        return tuple(self._rows_of[SPANS.name])

    def events(self) -> pl.DataFrame:
        """What was done to trials; no rows if nothing was."""
        return whole_events(self._grown(EVENTS))

    def counts(self) -> pl.DataFrame:
        """What was counted in every window of the counting trials; no rows if nothing was."""
        return self._grown(COUNTS)

    def functions(self) -> pl.DataFrame:
        """Instructions by function of the counting trials; no rows if the counter tells none."""
        return self._grown(FUNCTIONS)

    def profiles(self) -> pl.DataFrame:
        """Stacks of the profiled trials; no rows if there were none."""
        return self._grown(PROFILES)

    def protection(self) -> tuple[ProtectionTry, ...]:
        """What was tried against postures, in the order of trying; empty if nothing was."""
        path = str(self.directory / f"{PROTECTION.name}.parquet")
        try:
            return tries_of(self._shared(PROTECTION).to_pylist())
        except ValueError as error:
            raise damaged(path, f"a row is no try: {error}") from error

    def _grown(self, spec: TableSpec) -> pl.DataFrame:
        """A table that all trials share, without rows of trials that are not complete."""
        frame = pl.from_arrow(self._shared(spec))
        assert isinstance(frame, pl.DataFrame)
        complete = self.trials_arrow["trial_id"].to_pylist()
        return frame.filter(pl.col("trial_id").cast(pl.String).is_in(complete))

    def _shared(self, spec: TableSpec) -> pa.Table:
        """A table that may be absent; without rows then."""
        name = f"{spec.name}.parquet"
        with held(self.directory) as folder:
            contents, _ = contents_of(folder)
        if name not in contents:
            return spec.arrow.empty_table()
        return table_of(contents[name], spec, str(self.directory / name))

    def connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the views `design`, `trials`, `requests`, `telemetry`, `spans`, `events`,
        `counts`, `functions`, `profiles`, `protection`; close it."""
        connection = duckdb.connect()
        for name in ("design", "trials"):
            connection.from_parquet(str(self.directory / f"{name}.parquet")).create_view(name)
        for spec in OF_A_TRIAL:
            files = [str(path) for path in self.files(spec)]
            if files:
                connection.from_parquet(files, union_by_name=True).create_view(spec.name)
            else:
                connection.from_arrow(spec.arrow.empty_table()).create_view(spec.name)
        connection.register(EVENTS.name, self.events().to_arrow())
        connection.register(COUNTS.name, self.counts().to_arrow())
        connection.register(FUNCTIONS.name, self.functions().to_arrow())
        connection.register(PROFILES.name, self.profiles().to_arrow())
        connection.register(PROTECTION.name, self._shared(PROTECTION))
        return connection

    def posture(self, file_name: str) -> str:
        """The mesh's own resources that a trial ran with, by its `posture_file`."""
        name = f"{POSTURES}/{Path(file_name).name}"
        with held(self.directory) as folder:
            return text_of(read(folder, name, _SMALL_BYTES), str(self.directory / name))

    def _scan(self, spec: TableSpec, trial_ids: Iterable[str] | None) -> pl.LazyFrame:
        """One trial is decoded and checked at once. Of several the sizes are checked, and the rows read when
        they are asked for, because together they may be larger than the memory."""
        wanted = None if trial_ids is None else set(trial_ids)
        names = [name for name in self._rows_of[spec.name] if wanted is None or name in wanted]
        if len(names) > 1:
            paths = self.files(spec, set(names))
            return pl.scan_parquet(paths, missing_columns="insert", extra_columns="ignore", glob=False)
        table = self._checked(spec, names[0]) if names else spec.arrow.empty_table()
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame.lazy()

    def _checked(self, spec: TableSpec, trial_id: str) -> pa.Table:
        rows, digest = self._rows_of[spec.name][trial_id]
        name, most_bytes = f"{spec.name}/{trial_id}.parquet", _most_bytes(spec.name, rows)
        path = str(self.directory / name)
        with held(self.directory) as folder:
            content = read(folder, name, most_bytes)
        if self.verified and digest_of(content) != digest:
            raise messages.ALTERED.error(path, difference=OTHER_DIGEST)
        table = decode(content, path, spec, rows=rows, most_bytes=most_bytes)
        require_one_trial(table, trial_id, path)
        return table.replace_schema_metadata(None)

    def files(self, spec: TableSpec, wanted: set[str] | None = None) -> list[Path]:
        """The files of these trials (default: of all), each with as many rows as are recorded."""
        paths = []
        with held(self.directory) as folder:
            for trial_id, (rows, _) in self._rows_of[spec.name].items():
                if wanted is None or trial_id in wanted:
                    name = f"{spec.name}/{trial_id}.parquet"
                    path = self.directory / name
                    most_bytes = _most_bytes(spec.name, rows)
                    check_sizes(read(folder, name, most_bytes), str(path), rows=rows, most_bytes=most_bytes)
                    paths.append(path)
        return paths

    @cached_property
    def _rows_of(self) -> Mapping[str, Mapping[str, tuple[int, str]]]:
        """Table -> trial_id -> rows and digest of its file. Kept, because who reads trial by trial asks once
        per trial."""
        found: dict[str, dict[str, tuple[int, str]]] = {spec.name: {} for spec in OF_A_TRIAL}
        for name, of_trial in found.items():
            columns = (self.trials_arrow[each].to_pylist() for each in (f"{name}_rows", f"{name}_sha256"))
            for trial_id, rows, digest in zip(
                self.trials_arrow["trial_id"].to_pylist(), *columns, strict=True
            ):
                if digest is not None:
                    of_trial[trial_id] = (rows, digest)
        return found

    def _trace(self) -> Iterable[tuple[str, str, int]]:
        """The trace that the load replayed, if it did, with its recorded digest."""
        if trace := self.about.get("trace"):
            yield f"{TRACES}/{Path(trace['name']).name}", trace["sha256"], _MOST_TRACE_BYTES

    def _files(self) -> Iterator[tuple[str, str, int]]:
        """The files of complete trials: name, recorded digest, the most bytes that they may have."""
        for kind, of_trial in self._rows_of.items():
            for trial_id, (rows, digest) in of_trial.items():
                yield f"{kind}/{trial_id}.parquet", digest, _most_bytes(kind, rows)
        others: dict[str, str] = {}
        columns = ("trial_id", "files", "posture_file")
        for row in self.trials_arrow.select(columns).to_pylist():
            others |= files_of(row, str(self.directory / "trials.parquet"))
            if (
                row["files"] is None and row["posture_file"] is not None
            ):  # version 1: the digest is in its name
                others.setdefault(f"{POSTURES}/{row['posture_file']}", _short_digest(row["posture_file"]))
        for name, digest in others.items():
            yield name, digest, _SMALL_BYTES


OTHER_DIGEST = "its digest is not the one recorded in trials.parquet"
SHORTEST_DIGEST = 12
"""Hexadecimal digits that version 1 kept of the digest of a posture, in its file's name."""
_SMALL_BYTES, _MOST_TRACE_BYTES = 16 << 20, 4 << 30


def _short_digest(posture_file: str) -> str:
    return posture_file.removesuffix(".yaml").rpartition("-")[2]


def _most_bytes(table: str, rows: int) -> int:
    """Of a table of a trial, by its name."""
    return (1 << 20) + rows * (MOST_SPAN_BYTES if table == SPANS.name else MOST_ROW_BYTES)


def _difference(folder: Folder, name: str, digest: str, most_bytes: int) -> str:
    """What is wrong with a file; empty if nothing is."""
    try:
        with opened(folder, name, most_bytes) as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "it is not there"
    except OSError as error:
        return error.strerror or str(error)
    return "" if found.startswith(digest) and len(digest) >= SHORTEST_DIGEST else OTHER_DIGEST


def _about(path: str, design: pa.Table) -> Mapping[str, Any]:
    metadata = (design.schema.metadata or {}).get(b"meshwise")
    if metadata is None:
        raise damaged(path, "its `meshwise` metadata is missing or unreadable")
    about = json_object(metadata, path, "its `meshwise` metadata")
    version = about.get("schema_version")
    if not isinstance(version, int):
        raise damaged(path, "its `meshwise` metadata has no version")
    if version > SCHEMA_VERSION:
        raise messages.NEWER_SCHEMA.error(str(Path(path).parent), found=version, known=SCHEMA_VERSION)
    check_about(about, path)
    return about


def _design(path: str, rows: Iterable[Mapping[str, Any]]) -> tuple[Trial, ...]:
    try:
        return tuple(trial_of(row) for row in rows)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise damaged(path, f"a row is no trial: {error}") from error


def stored_graph(directory: Path) -> ServiceGraph | None:
    """The service graph of the study that is stored here; None if there is no archive, or no graph in it.
    Raises MW608."""
    path = directory / "design.parquet"
    if not path.is_file():
        return None
    stored = read_table(path, DESIGN)
    design = _design(str(path), with_rounds(stored, stored).to_pylist())
    return next((trial.cell.graph for trial in design if trial.cell.graph), None)


def stored_alone(directory: Path) -> int | None:
    """How many trials of every block run alone in the study that is stored here: none in one that was begun
    before there were any. None if there is no archive. Raises what `ArchiveReader.open` does."""
    if not (directory / "design.parquet").is_file():
        return None
    return ArchiveReader.open(directory).study().alone


def read_table(path: Path, spec: TableSpec) -> pa.Table:
    """A whole table of trials or events, in the spec's types. Raises MW608."""
    with held(path.parent) as folder:
        return table_of(read(folder, path.name, MOST_TABLE_BYTES), spec, str(path))
