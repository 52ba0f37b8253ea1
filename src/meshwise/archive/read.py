"""The one reader of a study's directory: checks what it opens, then gives tables lazily.

Every file of a complete trial is compared with the digest in its row before anything is read from it, so
that a truncated or altered file is named (MW608, MW609) and never becomes a number, nor a traceback.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from meshwise.archive.rows import trial_of
from meshwise.archive.schema import (
    DESIGN,
    EVENTS,
    REQUESTS,
    SCHEMA_VERSION,
    TELEMETRY,
    TRIALS,
    TableSpec,
    conform,
)
from meshwise.core import messages
from meshwise.study.file.read import parse_study
from meshwise.study.load.trace import TRACES
from meshwise.study.model import Cell, Layer, ServiceGraph, Study, Trial


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

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True) -> Self:
        """Raises MW604 (no archive), MW610 (newer), MW608, MW609 (a file is damaged or altered).

        `verify=False` skips the digests of the trials' own files.
        """
        if not (directory / "design.parquet").is_file():
            reason = "there is no design.parquet" if directory.is_dir() else "there is no such directory"
            raise messages.NOT_AN_ARCHIVE.error(str(directory), reason=reason)
        design = read_table(directory / "design.parquet", DESIGN)
        about = _about(directory / "design.parquet", design)
        study_text = _read(directory / "study.yaml")
        if _digest(study_text.encode()) != about.get("study_sha256"):
            raise messages.ALTERED.error(
                str(directory / "study.yaml"), difference="its digest is not the one in design.parquet"
            )
        reader = cls(
            directory=directory,
            study_text=study_text,
            environment=_json_object(directory / "environment.json"),
            about=about,
            design=_design(directory / "design.parquet", design),
            trials_arrow=read_table(directory / "trials.parquet", TRIALS),
        )
        if verify:
            reader.verify()
        return reader

    def verify(self) -> None:
        """Compare every trial's files with their digests. Raises MW609 naming all that differ."""
        files = [*self._trace(), *self._files()]
        troubles = [trouble for path, digest in files if (trouble := _difference(path, digest))]
        if troubles:
            first = troubles[0]
            more = "".join(f"\n{path}: {difference}" for path, difference in troubles[1:])
            raise messages.ALTERED.error(str(first[0]), difference=first[1] + more)

    def trials(self) -> pl.DataFrame:
        """One row per complete trial, in the order of running."""
        frame = pl.from_arrow(self.trials_arrow)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def cells(self) -> tuple[Cell, ...]:
        """The cells of the design, each once, in the order of the study file."""
        order = {cell.name: cell for cell in self.study().cells}
        return tuple(order.values())

    def study(self) -> Study:
        """The study as it was asked; its not-applicable cells as the meshes said then."""
        reasons = {entry["cell"]: entry["reason"] for entry in self.about.get("not_applicable", [])}
        return parse_study(
            self.study_text,
            str(self.directory / "study.yaml"),
            lambda cell: reasons.get(cell.name),
            self.layer,
            next((trial.cell.graph for trial in self.design if trial.cell.graph), None),
            traces=self.directory / TRACES if self.about.get("trace") else None,
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

    def events(self) -> pl.DataFrame:
        """What was done to trials; no rows if nothing was."""
        path = self.directory / "events.parquet"
        table = read_table(path, EVENTS) if path.exists() else EVENTS.arrow.empty_table()
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def connect(self) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the views `design`, `trials`, `requests`, `telemetry`; close it."""
        connection = duckdb.connect()
        for name in ("design", "trials"):
            connection.from_parquet(str(self.directory / f"{name}.parquet")).create_view(name)
        for spec in (REQUESTS, TELEMETRY):
            files = [str(path) for path in self._paths(spec, None)]
            if files:
                connection.from_parquet(files, union_by_name=True).create_view(spec.name)
            else:
                connection.from_arrow(spec.arrow.empty_table()).create_view(spec.name)
        return connection

    def posture(self, file_name: str) -> str:
        """The mesh's own resources that a trial ran with, by its `posture_file`."""
        return _read(self.directory / "postures" / Path(file_name).name)

    def _scan(self, spec: TableSpec, trial_ids: Iterable[str] | None) -> pl.LazyFrame:
        paths = self._paths(spec, None if trial_ids is None else set(trial_ids))
        if not paths:
            frame = pl.from_arrow(spec.arrow.empty_table())
            assert isinstance(frame, pl.DataFrame)
            return frame.lazy()
        return pl.scan_parquet(paths, missing_columns="insert", extra_columns="ignore", glob=False)

    def _paths(self, spec: TableSpec, wanted: set[str] | None) -> list[Path]:
        paths = self._paths_by_id[spec.name]
        return list(paths.values()) if wanted is None else [paths[name] for name in wanted if name in paths]

    @cached_property
    def _paths_by_id(self) -> Mapping[str, Mapping[str, Path]]:
        """Kept, because who reads trial by trial asks once per trial."""
        return {
            spec.name: {path.stem: path for path, _ in self._files(spec)} for spec in (REQUESTS, TELEMETRY)
        }

    def _trace(self) -> Iterable[tuple[Path, str]]:
        """The trace that the load replayed, if it did, with its recorded digest."""
        if trace := self.about.get("trace"):
            yield self.directory / TRACES / Path(trace["name"]).name, trace["sha256"]

    def _files(self, *specs: TableSpec) -> Iterable[tuple[Path, str]]:
        """The files of complete trials with their recorded digests."""
        for spec in specs or (REQUESTS, TELEMETRY):
            ids = self.trials_arrow["trial_id"].to_pylist()
            digests = self.trials_arrow[f"{spec.name}_sha256"].to_pylist()
            for trial_id, digest in zip(ids, digests, strict=True):
                if digest is not None:
                    yield self.directory / spec.name / f"{trial_id}.parquet", digest


def read_table(path: Path, spec: TableSpec) -> pa.Table:
    """A whole Parquet file, in the spec's types. Raises MW608."""
    try:
        table = pq.read_table(path)
        return conform(table, spec).select(spec.arrow.names).replace_schema_metadata(table.schema.metadata)
    except FileNotFoundError as error:
        raise messages.DAMAGED.error(str(path), reason="it is not there") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise messages.DAMAGED.error(str(path), reason=str(error).splitlines()[0]) from error


def _about(path: Path, design: pa.Table) -> Mapping[str, Any]:
    try:
        about = json.loads((design.schema.metadata or {})[b"meshwise"])
        version = int(about["schema_version"])
    except (KeyError, ValueError, TypeError) as error:
        raise messages.DAMAGED.error(
            str(path), reason="its `meshwise` metadata is missing or unreadable"
        ) from error
    if version > SCHEMA_VERSION:
        raise messages.NEWER_SCHEMA.error(str(path.parent), found=version, known=SCHEMA_VERSION)
    assert isinstance(about, dict)
    return about


def _design(path: Path, table: pa.Table) -> tuple[Trial, ...]:
    try:
        return tuple(trial_of(row) for row in table.to_pylist())
    except (KeyError, ValueError) as error:
        raise messages.DAMAGED.error(str(path), reason=f"a row is no trial: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"
        raise messages.DAMAGED.error(str(path), reason=reason) from error


def _json_object(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise messages.DAMAGED.error(str(path), reason=f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise messages.DAMAGED.error(str(path), reason="not a JSON object")
    return value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _difference(path: Path, digest: str) -> tuple[Path, str] | None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return path, "it is not there"
    except OSError as error:
        return path, error.strerror or str(error)
    return None if found == digest else (path, "its digest is not the one recorded in trials.parquet")


def stored_graph(directory: Path) -> ServiceGraph | None:
    """The service graph of the study that is stored here; None if there is no archive, or no graph in it.
    Raises MW608."""
    path = directory / "design.parquet"
    if not path.is_file():
        return None
    design = _design(path, read_table(path, DESIGN))
    return next((trial.cell.graph for trial in design if trial.cell.graph), None)
