"""How a study's directory begins, and how a run goes on in one that is there (docs/archive.md).

`design.parquet` is written last on creation: without it a directory is not yet an archive.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from meshwise import __version__
from meshwise.archive.contents import encode
from meshwise.archive.lock import LOCK_NAME
from meshwise.archive.manifest import MANIFEST_NAME, Manifest, digest_of
from meshwise.archive.read import POSTURES, ArchiveReader
from meshwise.archive.resolved import STUDY_VALUES_NAME, to_values
from meshwise.archive.rows import design_table, trials_table
from meshwise.archive.schema import (
    COUNTS,
    EVENTS,
    FUNCTIONS,
    OF_A_TRIAL,
    PROFILES,
    PROTECTION,
    SCHEMA_VERSION,
    SPANS,
)
from meshwise.core import messages
from meshwise.core.files import ASIDE, Folder, free_bytes, reading
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
    ("counter",),
)
"""Facts of environment.json that must not change between the trials of one study; load and pressure may."""
MAY_CHANGE = "path"
"""Within them: where a proxy lies, whose digest stands beside."""

PROBE_NAME = ".probe"
FAILURES = "failures"
OWN_NAMES = {
    "study.yaml",
    STUDY_VALUES_NAME,
    MANIFEST_NAME,
    "environment.json",
    "trials.parquet",
    "requests",
    "telemetry",
    "spans",
    "postures",
    TRACES,
    LOCK_NAME,
    PROBE_NAME,
}
"""What an interrupted creation may have left."""


def require_empty(directory: Path) -> None:
    if not directory.is_dir():
        raise NotADirectoryError(20, "it is a file, not a directory", str(directory))
    strangers = sorted(
        path.name
        for path in directory.iterdir()
        if path.name.removesuffix(ASIDE) not in OWN_NAMES | {"design.parquet"}
    )
    if strangers:
        raise messages.NOT_EMPTY.error(str(directory), names=", ".join(strangers[:5]))


def probe(folder: Folder) -> None:
    """Write where the archive will be, so that what forbids it is known now."""
    folder.write(PROBE_NAME, b"x" * 4096)
    folder.remove(PROBE_NAME)


def require_space(directory: Path, study: Study, missing_trials: int) -> None:
    needed, free = disk_bytes(study, missing_trials), free_bytes(directory)
    if free < needed:
        raise messages.NO_SPACE.error(str(directory), free=format_size(free), needed=format_size(needed))


def create(
    folder: Folder, study: Study, trials: Sequence[Trial], environment: Mapping[str, object]
) -> tuple[pa.Table, dict[str, str]]:
    """An archive without trials, and the digests of its files. `design.parquet` is written last: with it the
    directory is an archive."""
    own = [spec.name for spec in OF_A_TRIAL]
    for name in (*own, POSTURES, FAILURES):
        folder.remove_tree(name)
    for name in (*(name for name in own if name != SPANS.name), POSTURES):
        folder.folder(name, make=True).close()
    for spec in (EVENTS, COUNTS, FUNCTIONS, PROFILES, PROTECTION):
        folder.remove(f"{spec.name}.parquet", absent=True)
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
    keep_manifest(folder, digests)
    for name, content in contents.items():
        folder.write(name, content)
    return stored, digests


def keep_manifest(
    folder: Folder, digests: Mapping[str, str], about_to_be: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    files = {name: (digest,) for name, digest in digests.items()}
    folder.write(MANIFEST_NAME, Manifest(files | dict(about_to_be or {})).encode())


def _keep_trace(folder: Folder, study: Study) -> None:
    """The trace of the load, as it was read: with it the directory says all that was asked."""
    trace = study.trial.shape.trace if study.trial.shape else None
    if trace is None:
        return
    with folder.folder(TRACES, make=True) as traces, reading(Path(trace.path)) as original:
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


def go_on(
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
        raise messages.OTHER_STUDY.error(str(directory), difference=_of_designs(reader.design, trials))
    differences = _differences(reader.environment, json.loads(json.dumps(environment)))
    if differences:
        raise messages.OTHER_ENVIRONMENT.error(str(directory), differences="; ".join(differences))
    stored = reader.trials_arrow
    _clean(folder, set(stored["trial_id"].to_pylist()))
    digests = dict(reader.digests)
    keep_manifest(folder, digests)  # an archive of version 1 has one from now on
    return stored.replace_schema_metadata(None), digests


def _of_designs(former: Sequence[Trial], now: Sequence[Trial]) -> str:
    """How two designs of one study file differ, in words."""
    if _most_arms(former) == 1 < _most_arms(now):
        return (
            "an earlier meshwise began it and ran its trials one after another, now they would run together; "
            "what it has can be analysed as it is"
        )
    return "its design differs from the study's"


def _most_arms(trials: Sequence[Trial]) -> int:
    return max(Counter(trial.round for trial in trials if trial.role.timed).values(), default=0)


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
    return _lasting(value)


def _lasting(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _lasting(each) for key, each in value.items() if key != MAY_CHANGE}


def _clean(folder: Folder, complete: set[str]) -> None:
    """Remove what a killed run left: files written aside, and tables of trials without a row."""

    def left(name: str) -> bool:
        return name.endswith(ASIDE)

    def left_or_without_a_row(name: str) -> bool:
        return left(name) or (name.endswith(".parquet") and name.removesuffix(".parquet") not in complete)

    _remove(folder, left)
    own = [spec.name for spec in OF_A_TRIAL]
    for name in (*own, POSTURES, TRACES, FAILURES):
        if folder.exists(name):
            with folder.folder(name) as inner:
                _remove(inner, left_or_without_a_row if name in own else left)


def _remove(folder: Folder, unwanted: Callable[[str], bool]) -> None:
    for name in filter(unwanted, folder.names()):
        log.info("removing %s, left by an interrupted run", folder.path / name)
        folder.remove(name)
