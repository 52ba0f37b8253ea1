"""The directory of an import: a production mesh's series, as another monitoring kept them.

    DIR/
      imported.json               where from, of what time, what it cannot tell; the digests of the tables
      imported_series.parquet     one row per series: what it is of, what it counted, how it was disturbed
      imported_samples.parquet    its points
      imported_troubles.parquet   resets, gaps, series that began late or ended early
      findings.json               levels of provenance `imported`

It is made beside its place and renamed, so that it is there whole or not at all. What an import that was
killed left beside its own is removed by the next one there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from meshwise import __version__
from meshwise.archive.contents import held, read
from meshwise.archive.documents import json_object
from meshwise.archive.findings import FINDINGS_NAME
from meshwise.archive.manifest import IMPORTED_NAME
from meshwise.archive.schema import INT, NAME, TEXT, Column, TableSpec
from meshwise.core import messages
from meshwise.core.files import disk_troubles
from meshwise.core.scratch import scratch_directory

_BESIDE = ".meshwise-import-"
"""Begins the name of a directory that is being made."""
_VERSION = 1
_MOST_BYTES = 16 << 20
_ROWS_AT_ONCE = 500_000
_MOST_TABLE_BYTES = 8 << 30
_NUMBER = pa.float64()

SERIES = TableSpec(
    "imported_series",
    "one row per imported series",
    (
        Column("series", pa.int32(), "its number in this import"),
        Column("metric", NAME, "its name there: `istio_requests_total`, `response_latency_ms_bucket`, ..."),
        Column("kind", NAME, "`counter` (also a histogram's bucket, sum and count) or `gauge`"),
        Column("mesh", NAME, "`istio`, `linkerd`; null of a container that is no sidecar"),
        Column("namespace", NAME, "of the workload that answers, or to which the container belongs"),
        Column("workload", NAME, "that answers, or to which the container belongs"),
        Column("side", NAME, "`server` or `client`: whose proxy saw the request; null of containers"),
        Column("proxy_of", NAME, "`namespace/workload` whose proxy saw the request; null of containers"),
        Column("pod", NAME, "as its labels name it; null where they do not"),
        Column("container", NAME, "of a container's CPU or memory"),
        Column("labels", TEXT, "JSON: all its labels"),
        Column("first_unix_ns", INT, "its first point"),
        Column("last_unix_ns", INT, "its last point"),
        Column("samples", INT, "number of its points"),
        Column("resets", INT, "how often a counter fell"),
        Column("gaps", INT, "times without points between its first and last"),
        Column("increase", _NUMBER, "of a counter: what was counted from its first to its last point"),
        Column("mean", _NUMBER, "of a gauge: mean of its points"),
        Column("most", _NUMBER, "of a gauge: its highest point"),
    ),
)
SAMPLES = TableSpec(
    "imported_samples",
    "the points of the imported series",
    (
        Column("series", pa.int32(), "which of `imported_series`"),
        Column("t_unix_ns", INT, "the last reading of the step that ends here"),
        Column("value", _NUMBER, "as it was there, in the unit of its name"),
    ),
)
TROUBLES = TableSpec(
    "imported_troubles",
    "what disturbs the imported series",
    (
        Column("series", pa.int32(), "which of `imported_series`"),
        Column("kind", NAME, "`reset`, `gap`, `late` (began within the time), `ended` (stopped within it)"),
        Column("begin_unix_ns", INT, "the last point before"),
        Column("end_unix_ns", INT, "the first point after"),
        Column("detail", TEXT, "in words"),
    ),
)
IMPORTED_TABLES = (SERIES, SAMPLES, TROUBLES)


@dataclass(frozen=True)
class ImportReader:
    """An import's directory, opened for reading."""

    directory: Path
    about: Mapping[str, Any]
    """`imported.json`."""

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True) -> Self:
        """Raises MW604 where it is no import, MW027 for one that is damaged."""
        with held(directory) as folder:
            if not folder.exists(IMPORTED_NAME):
                raise messages.NOT_AN_ARCHIVE.error(str(directory), reason="there is no imported.json")
            path = str(directory / IMPORTED_NAME)
            about = json_object(read(folder, IMPORTED_NAME, _MOST_BYTES), path)
            own = about.pop("sha256", None)
            if own != _own_digest(about) or about.get("imported") != _VERSION:
                raise messages.NOT_AN_IMPORT.error(path, reason="imported.json is not as it was written")
            tables = (f"{spec.name}.parquet" for spec in IMPORTED_TABLES)
            for name in (*tables, FINDINGS_NAME) if verify else ():
                try:
                    found = folder.sha256(name, _MOST_TABLE_BYTES)
                except OSError as error:
                    raise messages.NOT_AN_IMPORT.error(
                        str(directory / name), reason=error.strerror or str(error)
                    ) from error
                if found != (about.get("files") or {}).get(name):
                    raise messages.NOT_AN_IMPORT.error(
                        str(directory / name), reason="its digest is not the one in imported.json"
                    )
        return cls(directory, about)

    def series(self) -> pa.Table:
        return pq.read_table(self.directory / f"{SERIES.name}.parquet")


def is_import(directory: Path) -> bool:
    return (directory / IMPORTED_NAME).is_file()


class ImportWriter:
    """Writes the tables of an import into a directory that has no name yet; made by `importing`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._writers = {
            spec.name: pq.ParquetWriter(place / f"{spec.name}.parquet", spec.arrow, compression="zstd")
            for spec in IMPORTED_TABLES
        }
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in self._writers}
        self._rows = dict.fromkeys(self._writers, 0)

    def add(self, spec: TableSpec, rows: Mapping[str, Any]) -> None:
        """Columns as lists or arrays. Written in groups of many rows, however few come at once."""
        table = pa.table(dict(rows), schema=spec.arrow)
        self._waiting[spec.name].append(table)
        self._rows[spec.name] += table.num_rows
        if self._rows[spec.name] >= _ROWS_AT_ONCE:
            self._flush(spec.name)

    def _flush(self, name: str) -> None:
        if self._waiting[name]:
            together = pa.concat_tables(self._waiting[name]).unify_dictionaries().combine_chunks()
            self._writers[name].write_table(together)
        self._waiting[name], self._rows[name] = [], 0

    def close(self) -> None:
        """The tables are whole. A second call does nothing."""
        for name, writer in self._writers.items():
            if writer.is_open:
                self._flush(name)
                writer.close()

    def abandon(self) -> None:
        """Give the files back, whatever state they are in: they have their name, or are removed."""
        for writer in self._writers.values():
            with suppress(OSError):
                writer.close()

    def keep(self, about: Mapping[str, Any]) -> None:
        """`imported.json`, with the digests of all that is here; the last thing that is written."""
        self.close()
        files = {path.name: _digest(path) for path in sorted(self.place.iterdir())}
        body = {"imported": _VERSION, "meshwise": __version__, **about, "files": files}
        text = json.dumps(body | {"sha256": _own_digest(body)}, indent=1)
        (self.place / IMPORTED_NAME).write_text(text + "\n")


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _own_digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@contextmanager
def importing(directory: Path) -> Iterator[ImportWriter]:
    """The directory has its name when the block ends well; when it does not, nothing is left.

    Raises MW603 where something is there already, MW606 or MW607 where nothing can be written.
    """
    parent = directory.absolute().parent
    with disk_troubles(parent):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            names = (
                ", ".join(sorted(path.name for path in directory.iterdir())[:5])
                if directory.is_dir()
                else "a file"
            )
            raise messages.NOT_EMPTY.error(str(directory), names=names)
        parent.mkdir(parents=True, exist_ok=True)
    writer = None
    try:
        with disk_troubles(parent), scratch_directory(_BESIDE, parent) as place:
            writer = ImportWriter(place)
            yield writer
            place.chmod(0o755)
            for path in place.iterdir():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            place.rename(directory)
    finally:
        if writer is not None:
            writer.abandon()
