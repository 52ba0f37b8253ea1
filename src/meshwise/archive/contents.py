"""The files of a study's directory itself, as bytes, read through its handle, compared with the manifest."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from meshwise.archive.decode import MOST_TABLE_BYTES, decode
from meshwise.archive.documents import damaged
from meshwise.archive.manifest import ABSENT, MANIFEST_NAME, Manifest, digest_of
from meshwise.archive.resolved import STUDY_VALUES_NAME
from meshwise.archive.schema import TableSpec
from meshwise.core import messages
from meshwise.core.files import Folder, NotPlain

MOST_BYTES: Mapping[str, int] = {
    MANIFEST_NAME: 1 << 20, "study.yaml": 1 << 20, STUDY_VALUES_NAME: 64 << 20, "environment.json": 16 << 20,
    "design.parquet": 256 << 20, "trials.parquet": 256 << 20, "events.parquet": 256 << 20,
    "counts.parquet": 256 << 20, "functions.parquet": 256 << 20, "profiles.parquet": 256 << 20,
    "protection.parquet": 64 << 20,
}  # fmt: skip
"""Above it a file is refused unread. The manifest is read first."""
_MAY_BE_ABSENT = frozenset(
    {
        MANIFEST_NAME, STUDY_VALUES_NAME, "events.parquet", "counts.parquet", "functions.parquet",
        "profiles.parquet", "protection.parquet",
    }
)  # fmt: skip
_READINGS = 50
"""Of a directory that a run writes to meanwhile."""


def contents_of(folder: Folder) -> tuple[dict[str, bytes], Manifest | None]:
    """One state of the directory: while a run lives, manifest and files are read again until they belong
    together. Without a manifest (version 1) nothing is compared. Raises MW608, MW609."""
    for _ in range(_READINGS):
        present = [name for name in MOST_BYTES if name not in _MAY_BE_ABSENT or folder.exists(name)]
        raw = {name: read(folder, name, MOST_BYTES[name]) for name in present}
        content = raw.pop(MANIFEST_NAME, None)
        if content is None:
            return raw, None
        manifest = Manifest.decode(content, str(folder.path / MANIFEST_NAME))
        digests = {name: digest_of(raw[name]) if name in raw else ABSENT for name in MOST_BYTES}
        differing = [
            name
            for name, digest in digests.items()
            if name != MANIFEST_NAME and not manifest.allows(name, digest)
        ]
        if not differing:
            return raw, manifest
        if read(folder, MANIFEST_NAME, MOST_BYTES[MANIFEST_NAME]) == content:
            path = str(folder.path / differing[0])
            if differing[0] not in raw:
                raise damaged(path, "it is not there")
            raise messages.ALTERED.error(path, difference="its digest is not the one in manifest.json")
    raise damaged(str(folder.path / MANIFEST_NAME), "it changes faster than the archive can be read")


@contextmanager
def held(directory: Path) -> Iterator[Folder]:
    """The directory's handle. Raises MW604 if there is no such directory."""
    try:
        folder = Folder.open(directory)
    except OSError as error:
        reason = "there is no such directory" if isinstance(error, FileNotFoundError) else error.strerror
        raise messages.NOT_AN_ARCHIVE.error(str(directory), reason=reason) from error
    with folder:
        yield folder


def opened(folder: Folder, name: str, most_bytes: int) -> BufferedReader:
    """A file by its name in the archive, `requests/b000-p00.parquet`, no link followed. Raises OSError."""
    first, _, rest = name.partition("/")
    if first in ("", ".", ".."):
        raise NotPlain(errno.EINVAL, "its name leads out of the archive", str(folder.path / name))
    if not rest:
        return folder.opened(first, most_bytes)
    with folder.folder(first) as inner:
        return opened(inner, rest, most_bytes)


def read(folder: Folder, name: str, most_bytes: int) -> bytes:
    """Raises MW608."""
    path = str(folder.path / name)
    try:
        with opened(folder, name, most_bytes) as stream:
            return stream.read(most_bytes)
    except FileNotFoundError as error:
        raise damaged(path, "it is not there") from error
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error


def table_of(content: bytes, spec: TableSpec, path: str) -> pa.Table:
    """A table of trials or events, with the spec's columns only. Raises MW608."""
    table = decode(content, path, spec, most_bytes=MOST_TABLE_BYTES)
    return table.select(spec.arrow.names)


def text_of(content: bytes, path: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8") from error


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
