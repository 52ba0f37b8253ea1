"""JSON in an archive: decoded, and its types checked, before anything is read from it. Raises MW608."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError

Number = (int, float)


def damaged(path: str, what: str) -> MeshwiseError:
    """`FILE: damaged: what`."""
    return messages.DAMAGED.error(path, reason=what)


def json_object(content: bytes | str, path: str, what: str = "it") -> dict[str, Any]:
    """`what` says in the message which part of the file this is."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise damaged(path, f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise damaged(path, f"{what} is not a JSON object")
    return value


def check_environment(facts: Mapping[str, Any], path: str) -> None:
    """The facts that are computed with; all others are shown as they are."""
    cpus, traits = facts.get("cpus"), facts.get("traits", {})
    right = {
        "machine": isinstance(facts.get("machine", {}), dict),
        "proxies": isinstance(facts.get("proxies", {}), dict),
        "fidelity": isinstance(facts.get("fidelity", []), list | dict),
        "workers": isinstance(facts.get("workers"), int | None),
        "cpus": not isinstance(cpus, dict) or _list_of(cpus.get("others") or [], int),
        "traits": isinstance(traits, dict)
        and all(
            isinstance(each, dict) and _list_of([*each, *each.values()], str) for each in traits.values()
        ),
    }
    for name, fits in right.items():
        if not fits:
            raise damaged(path, f"`{name}` is not what a run writes there")


def check_about(about: Mapping[str, Any], path: str) -> None:
    """The metadata of `design.parquet`."""
    trace, absent = about.get("trace"), about.get("not_applicable") or []
    right = {
        "seed": isinstance(about.get("seed", 0), int),
        "study": isinstance(about.get("study", ""), str),
        "study_sha256": isinstance(about.get("study_sha256"), str),
        "level": about.get("level") in (None, "l4", "l7"),
        "trace": trace is None or (isinstance(trace, dict) and _texts(trace, "name", "sha256")),
        "not_applicable": isinstance(absent, list)
        and all(isinstance(each, dict) and _texts(each, "cell", "reason") for each in absent),
    }
    for name, fits in right.items():
        if not fits:
            raise damaged(path, f"`{name}` in its metadata is not what a run writes there")


def check_row_documents(row: Mapping[str, Any], path: str) -> None:
    """The JSON columns of a row of `trials.parquet`."""
    where = f"of {row['trial_id']}"
    proof = json_object(row["proof"], path, f"`proof` {where}")
    facts = proof.get("facts", {})
    if not isinstance(facts, dict) or not isinstance(proof.get("passed", True), bool):
        raise damaged(path, f"`proof` {where} is no proof")
    _checks(proof.get("checks", []), path, f"`proof` {where}")
    instrument = json_object(row["instrument"], path, f"`instrument` {where}")
    if not all(isinstance(value, str | int | float | bool | None) for value in instrument.values()):
        raise damaged(path, f"`instrument` {where} holds more than numbers and texts")
    checks = json_object(f'{{"checks": {row["checks"] or "[]"}}}', path, f"`checks` {where}")
    _checks(checks["checks"], path, f"`checks` {where}")


def files_of(row: Mapping[str, Any], path: str) -> dict[str, str]:
    """The column `files`: name in the archive -> SHA-256. Empty in archives that are older than it."""
    what = f"`files` of {row['trial_id']}"
    found = json_object(row["files"] or "{}", path, what)
    if not _list_of(list(found.values()), str):
        raise damaged(path, f"{what} is no list of digests")
    return found


def _checks(value: object, path: str, what: str) -> None:
    wanted: Mapping[str, type] = {"name": str, "expected": str, "observed": str, "passed": bool}
    if not isinstance(value, list):
        raise damaged(path, f"{what} has no list of checks")
    for check in value:
        if not (
            isinstance(check, dict) and all(isinstance(check.get(key), of) for key, of in wanted.items())
        ):
            raise damaged(path, f"{what} has a check that is none")


def _texts(value: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(value.get(key), str) for key in keys)


def _list_of(value: object, kind: type) -> bool:
    check: Callable[[object], bool] = lambda each: isinstance(each, kind)  # noqa: E731
    return isinstance(value, list) and all(map(check, value))
