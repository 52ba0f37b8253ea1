"""Whether the rows of `trials.parquet` can be what the trials of `design.parquet` left. Raises MW608."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from meshwise.archive.documents import check_row_documents, damaged, files_of
from meshwise.archive.outcome import TrialStatus
from meshwise.archive.schema import DESIGN
from meshwise.study.design.search import Result
from meshwise.study.model import Phase

Row = Mapping[str, Any]

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""A trial's id is the name of files."""
_RETRY = re.compile(r"-r\d+$")
_OWN_OF_A_STEP = frozenset({"rate_rps", "cell"})
"""What a step of a search has beside its design."""


def check_design(rows: Sequence[Row], path: str) -> None:
    _check_ids(rows, path)


def check_trials(rows: Sequence[Row], design: Sequence[Row], path: str) -> None:
    """Each row once, of a trial of the design, with its factors; none absent before one that is there."""
    _check_ids(rows, path)
    planned = {row["trial_id"]: row for row in design}
    for row in rows:
        _check_values(row, path)
        check_row_documents(row, path)
        files_of(row, path)
        name = row["trial_id"]
        origin = planned.get(row["search"] or _RETRY.sub("", name))
        if origin is None:
            raise damaged(path, f"{name} is no trial of design.parquet")
        own = {"trial_id"} | (_OWN_OF_A_STEP if row["search"] else set())
        for column in DESIGN.columns:
            if column.name not in own and row[column.name] != origin[column.name]:
                raise damaged(path, f"`{column.name}` of {name} is another than in design.parquet")
    _check_order(rows, list(planned), path)


def _check_ids(rows: Sequence[Row], path: str) -> None:
    for name, count in Counter(row["trial_id"] for row in rows).items():
        if count > 1:
            raise damaged(path, f"{name} has {count} rows")
        if not SAFE_NAME.fullmatch(name):
            raise damaged(path, f"`{name[:100]}` is no trial_id")


def _check_values(row: Row, path: str) -> None:
    name, searched = row["trial_id"], bool(row["search"])
    known: Mapping[str, list[str | None]] = {
        "status": [*(str(each) for each in TrialStatus)],
        "phase": [None, *(str(each) for each in Phase)],
        "result": [None, "", *(str(each) for each in Result)],
    }
    for column, values in known.items():
        if row[column] not in values:
            raise damaged(path, f"`{column}` of {name} is `{row[column]}`")
    if None in row["flags"]:
        raise damaged(path, f"`flags` of {name} holds a null")
    for kind in ("requests", "telemetry"):
        if (row[f"{kind}_rows"] is None) != (row[f"{kind}_sha256"] is None):
            raise damaged(path, f"of `{kind}` of {name} either rows or digest are absent")
    if row["status"] == TrialStatus.OK and row["requests_rows"] is None:
        raise damaged(path, f"{name} is `ok` without requests")
    if searched != (row["step"] is not None):
        raise damaged(path, f"of `search` and `step` of {name} one is absent")
    expected = f"{row['search']}-s{row['step']:03d}" if searched else _RETRY.sub("", name)
    if row["attempt"]:
        expected += f"-r{row['attempt']}"
    if name != expected:
        raise damaged(path, f"{name} says of itself that it is {expected}")


def _check_order(rows: Sequence[Row], planned: Sequence[str], path: str) -> None:
    """Trials run in the order of the design, steps in that of their search; so what was stored has no gap."""
    failed = {row["round"] for row in rows if row["status"] == TrialStatus.FAILED and not row["attempt"]}
    for row in rows:
        if row["attempt"] and row["round"] not in failed:
            raise damaged(path, f"{row['trial_id']} repeats a round in which no trial failed")
    begun = {row["search"] or row["trial_id"] for row in rows if not row["attempt"]}
    for name in planned[: len(begun)]:
        if name not in begun:
            raise damaged(path, f"the row of {name} is absent, though later ones are there")
    steps: dict[str, list[int]] = {}
    for row in rows:
        if row["search"]:
            steps.setdefault(row["search"], []).append(row["step"])
    for search, found in steps.items():
        if sorted(found) != list(range(len(found))):
            raise damaged(path, f"a step of {search} is absent, though later ones are there")
