"""Archives altered with knowledge of the format: every digest fits again, so that what stands behind the
digests is tried."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from meshwise.archive.contents import MOST_BYTES
from meshwise.archive.manifest import MANIFEST_NAME, Manifest


def sign(directory: Path) -> None:
    """Give the archive a manifest that fits its files as they are."""
    names = [name for name in MOST_BYTES if name != MANIFEST_NAME and (directory / name).exists()]
    digests = {name: (hashlib.sha256((directory / name).read_bytes()).hexdigest(),) for name in names}
    (directory / MANIFEST_NAME).write_bytes(Manifest(digests).encode())


def replace_column(directory: Path, name: str, column: str, values: pa.Array) -> None:
    """Another column in a table of the directory itself, with the manifest to it."""
    table = pq.read_table(directory / name)
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, column, values), directory / name)
    sign(directory)


def replace_trial_table(directory: Path, kind: str, trial_id: str, table: pa.Table, **write: object) -> None:
    """Another `requests` or `telemetry` of one trial, with its digest (not its rows) in `trials.parquet`."""
    path = directory / kind / f"{trial_id}.parquet"
    pq.write_table(table, path, **write)
    trials = pq.read_table(directory / "trials.parquet")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    digests = [
        digest if name == trial_id else old
        for name, old in zip(
            trials["trial_id"].to_pylist(), trials[f"{kind}_sha256"].to_pylist(), strict=True
        )
    ]
    replace_column(directory, "trials.parquet", f"{kind}_sha256", pa.array(digests, pa.string()))


def replace_about(directory: Path, **facts: object) -> None:
    """Other metadata of the design."""
    table = pq.read_table(directory / "design.parquet")
    about = json.loads(table.schema.metadata[b"meshwise"]) | facts
    pq.write_table(
        table.replace_schema_metadata({"meshwise": json.dumps(about)}), directory / "design.parquet"
    )
    sign(directory)


def sign_trial_files(directory: Path) -> None:
    """Digests and rows of `requests` and `telemetry` as the files are, as far as `trials.parquet` can hold
    them."""
    path = directory / "trials.parquet"
    table = pq.read_table(path)
    for kind in ("requests", "telemetry"):
        if not {"trial_id", f"{kind}_sha256", f"{kind}_rows"} <= set(table.column_names):
            continue
        digests, rows = [], []
        for trial_id, old, old_rows in zip(
            *(table[name].to_pylist() for name in ("trial_id", f"{kind}_sha256", f"{kind}_rows")), strict=True
        ):
            file = directory / kind / f"{trial_id}.parquet"
            there = old is not None and file.is_file()
            digests.append(hashlib.sha256(file.read_bytes()).hexdigest() if there else old)
            rows.append(pq.read_metadata(file).num_rows if there else old_rows)
        for name, values in ((f"{kind}_sha256", digests), (f"{kind}_rows", rows)):
            try:
                changed = pa.array(values, table[name].type)
            except (pa.ArrowException, TypeError, ValueError):  # the column itself is what was altered
                continue
            table = table.set_column(table.column_names.index(name), name, changed)
    pq.write_table(table, path)
