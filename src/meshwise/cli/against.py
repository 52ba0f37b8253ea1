"""What `meshwise count` says when it has counted: findings, and what changed against an earlier count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from meshwise.analysis.baseline import (
    Comparison,
    Counts,
    baseline_of,
    compare,
    counts_of,
    identity_of,
    unlike,
    unlike_identity,
)
from meshwise.analysis.contrast import cell_scope
from meshwise.archive.documents import json_object
from meshwise.archive.findings import FINDINGS_NAME, signed, write_findings
from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive, summary
from meshwise.core import messages
from meshwise.core.errors import ExitStatus
from meshwise.core.files import Folder, disk_troubles, reading, writing
from meshwise.findings.document import read_finding, to_json
from meshwise.findings.finding import SCHEMA_VERSION, Findings
from meshwise.report import edge, terminal
from meshwise.report.against import ShownChange, as_json, junit, markdown, shown_changes, table, verdict_line
from meshwise.study.design.counting import counted_cells
from meshwise.study.model import Study

BASELINE_NAME = "baseline.json"
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class CountOutputs:
    """What is asked for beside the archive."""

    against: Path | None = None
    markdown: Path | None = None
    junit: Path | None = None
    as_json: bool = False

    def earlier(self) -> Counts | None:
        """Read before anything is counted. Raises MW107 for outputs of a comparison without one, and MW606
        for those that have no directory."""
        for option, path in (("--markdown", self.markdown), ("--junit", self.junit)):
            if path is None:
                continue
            if self.against is None:
                reason = "it holds a comparison, and there is none"
                raise messages.IMPOSSIBLE.error(option, reason=reason, remedy="add `--against FILE`")
            with disk_troubles(path.absolute().parent):
                Folder.open(path.absolute().parent).close()
        return None if self.against is None else read_baseline(self.against)


def read_baseline(path: Path) -> Counts:
    """An earlier count: a findings.json, or a baseline.json. Raises MW702, MW703, MW705."""
    try:
        with reading(path, piped=True) as stream:
            raw = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise messages.NO_COUNTS.error(str(path), reason=error.strerror or str(error)) from error
    if len(raw) > _MOST_BYTES:
        raise messages.NO_COUNTS.error(str(path), reason="it is too large")
    document = json_object(raw, str(path))
    try:
        if int(document["schema_version"]) > SCHEMA_VERSION:
            raise messages.NEWER_FINDINGS.error(
                str(path), found=document["schema_version"], known=SCHEMA_VERSION
            )
        found = counts_of(
            document["study"], document["environment"], [read_finding(row) for row in document["findings"]]
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise messages.NO_FINDINGS_DOCUMENT.error(str(path), reason=reason) from error
    if not found.findings:
        raise messages.NO_COUNTS.error(str(path), reason="it has no finding that was counted")
    return found


def refuse_other(wanted: CountOutputs, earlier: Counts | None, environment: Mapping[str, Any]) -> None:
    """Before anything is counted. Raises MW704 where the counter or a proxy is another one than then."""
    if earlier and (reasons := unlike_identity(earlier.identity, identity_of(environment))):
        raise messages.NOT_COMPARABLE.error(str(wanted.against), reasons="; ".join(reasons))


def conclude(out: Path, wanted: CountOutputs, earlier: Counts | None) -> ExitStatus:
    """Analyse the archive, say what was found and what changed, write findings.json and baseline.json.

    Raises MW704 where the counts may not be compared, after all that."""
    reader = ArchiveReader.open(out)
    document = analyze_archive(reader)
    values = signed(to_json(document), reader.digests)
    reasons: list[str] = []
    comparison = None
    if earlier is not None:
        now = counts_of(document.study, document.environment, document.findings)
        if not (reasons := unlike(earlier, now)):
            asked = _asked(reader.study())
            comparison = compare(earlier, now, float(document.study["confidence"]), asked)
    shown = shown_changes(comparison) if comparison else ()
    _say(document, values, comparison, shown, wanted)
    _keep(out, values, reader.digests)  # after it was said: a full disk must not take it
    if not wanted.as_json:
        typer.echo(f"findings in {out / FINDINGS_NAME}, for later comparison {out / BASELINE_NAME}", err=True)
    if reasons:
        raise messages.NOT_COMPARABLE.error(str(wanted.against), reasons="; ".join(reasons))
    if comparison is not None:
        _write(wanted.markdown, markdown(shown, str(wanted.against), comparison))
        _write(wanted.junit, junit(shown, str(document.study["name"]), comparison))
    no = comparison and (comparison.changed or comparison.lost)
    return ExitStatus.ANSWER_IS_NO if no else ExitStatus.DONE


def _asked(study: Study) -> list[Mapping[str, object]]:
    """Levels of the cells that the study counts."""
    assert study.counting is not None
    return [cell_scope(cell) for cell in counted_cells(study.cells, study.counting).cells]


def _say(
    document: Findings,
    values: Mapping[str, Any],
    comparison: Comparison | None,
    shown: Sequence[ShownChange],
    wanted: CountOutputs,
) -> None:
    if wanted.as_json:
        typer.echo(json.dumps({**values, **_said(comparison, shown, wanted)}, indent=1))
        return
    typer.echo(summary(document))
    if comparison is not None:
        terminal.show_table(table(shown), edge.console())
        typer.echo(verdict_line(shown, str(wanted.against), comparison))


def _keep(out: Path, values: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    write_findings(out, values, digests)
    baseline = json.dumps(baseline_of(values), indent=1).encode() + b"\n"
    with disk_troubles(out), Folder.open(out) as folder:
        folder.write(BASELINE_NAME, baseline)


def _said(
    comparison: Comparison | None, shown: Sequence[ShownChange], wanted: CountOutputs
) -> dict[str, Any]:
    if comparison is None:
        return {}
    return {
        "against": {
            "file": str(wanted.against),
            "changed": len(comparison.changed),
            "compared": list(as_json(shown)),
            "lost": [each.id for each in comparison.lost],
            "only_then": list(comparison.only_then),
            "only_now": list(comparison.only_now),
        }
    }


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        with disk_troubles(path.absolute().parent), writing(path) as stream:
            stream.write(text.encode())
