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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from meshwise.archive.begin import FAILURES, create, go_on, keep_manifest, probe, require_empty, require_space
from meshwise.archive.contents import MOST_BYTES, encode, table_of
from meshwise.archive.lock import ArchiveLock
from meshwise.archive.manifest import ABSENT, digest_of
from meshwise.archive.outcome import ProtectionTry
from meshwise.archive.outcome import TrialOutcome as TrialOutcome
from meshwise.archive.outcome import TrialStatus as TrialStatus
from meshwise.archive.read import POSTURES
from meshwise.archive.rows import outcome_row, protection_table, trial_of, trials_table
from meshwise.archive.schema import (
    COUNTS,
    EVENTS,
    FUNCTIONS,
    PROFILES,
    PROTECTION,
    REQUESTS,
    SPANS,
    TELEMETRY,
    TableSpec,
    conform,
)
from meshwise.core import messages
from meshwise.core.files import Folder, disk_troubles
from meshwise.study.model import Study, Trial


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
                require_empty(directory)
            directory.mkdir(parents=True, exist_ok=True)
            with ExitStack() as held:
                folder = held.enter_context(Folder.open(directory))
                lock = held.enter_context(ArchiveLock(folder))
                probe(folder)
                if found:
                    stored, digests = go_on(folder, study, trials, environment)
                    require_space(directory, study, max(0, len(trials) - stored.num_rows))
                else:
                    require_space(directory, study, len(trials))
                    stored, digests = create(folder, study, trials, environment)
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
            measured = [each.measurement and (each.trial.trial_id, each.measurement) for each in outcomes]
            told = [each for each in measured if each]
            growing = self._grown(EVENTS, {name: each.events for name, each in told})
            growing |= self._grown(COUNTS, {name: each.counts for name, each in told})
            growing |= self._grown(FUNCTIONS, {name: each.functions for name, each in told})
            growing |= self._grown(PROFILES, {name: each.profiles for name, each in told})
            trials = pa.concat_tables([self._trials, trials_table(rows)]).combine_chunks()
            self._replace(growing | {"trials.parquet": encode(trials)})
        self._trials = trials
        self._statuses |= {outcome.trial.trial_id: outcome.status for outcome in outcomes}

    def keep_protection(self, tries: Sequence[ProtectionTry]) -> None:
        """Store what was tried against postures, instead of what was stored of that before. Raises MW607."""
        with disk_troubles(self.directory):
            self._replace({f"{PROTECTION.name}.parquet": encode(protection_table(tries))})

    @property
    def protected(self) -> bool:
        """Whether tries are stored."""
        return f"{PROTECTION.name}.parquet" in self._digests

    def _keep(self, outcome: TrialOutcome) -> dict[str, Any]:
        """The trial's own files; the columns about them."""
        files = self._keep_state(outcome)
        posture = self._keep_resources(outcome, files)
        columns: dict[str, Any] = {"posture_file": posture, "files": json.dumps(files)}
        if outcome.measurement is not None:
            columns |= self._keep_table(outcome.trial.trial_id, outcome.measurement.requests, REQUESTS)
            columns |= self._keep_table(outcome.trial.trial_id, outcome.measurement.telemetry, TELEMETRY)
            if outcome.measurement.spans is not None:
                columns |= self._keep_table(outcome.trial.trial_id, outcome.measurement.spans, SPANS)
        return columns

    def _replace(self, growing: Mapping[str, memoryview]) -> None:
        """Files that grow with the study: first the manifest, which names what they are and what they are
        about to be, then they, `trials.parquet` last; so that whatever a crash leaves is named."""
        digests = {name: digest_of(content) for name, content in growing.items()}
        about_to_be = {name: (self._digests.get(name, ABSENT), new) for name, new in digests.items()}
        keep_manifest(self._folder, self._digests, about_to_be)
        for name, content in growing.items():
            self._folder.write(name, content)
            self._digests[name] = digests[name]

    def close(self) -> None:
        self._lock.close()
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if kind is None:
                with disk_troubles(self.directory):
                    keep_manifest(self._folder, self._digests)  # from now on nothing is about to change
        finally:
            self.close()

    def _keep_table(self, trial_id: str, table: pa.Table, spec: TableSpec) -> dict[str, Any]:
        content = encode(self._conformed(table, spec, trial_id))
        with self._folder.folder(spec.name, make=True) as folder:
            folder.write(f"{trial_id}.parquet", content)
        return {
            f"{spec.name}_rows": table.num_rows,
            f"{spec.name}_sha256": digest_of(content),
        }

    def _grown(self, spec: TableSpec, told: Mapping[str, pa.Table | None]) -> dict[str, memoryview]:
        """One file for all trials, with what these trials tell (by trial_id); what a killed run left of a
        trial without a row is removed."""
        name = f"{spec.name}.parquet"
        new = [
            self._conformed(table, spec, trial_id) for trial_id, table in told.items() if table is not None
        ]
        if not any(table.num_rows for table in new):
            return {}
        if self._folder.exists(name):
            path, most_bytes = str(self.directory / name), MOST_BYTES[name]
            former = table_of(self._folder.read(name, most_bytes), spec, path)
            complete = pc.is_in(
                former["trial_id"].cast(pa.string()), pa.array(list(self._statuses), pa.string())
            )
            new = [former.filter(complete), *new]
        return {name: encode(pa.concat_tables(new).unify_dictionaries().combine_chunks())}

    def _conformed(self, table: pa.Table, spec: TableSpec, trial_id: str) -> pa.Table:
        try:
            return conform(table, spec, trial_id)
        except ValueError as error:
            raise messages.BAD_TABLE.error(
                str(self.directory), trial_id=trial_id, reason=str(error)
            ) from error

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
