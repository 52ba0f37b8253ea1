"""`meshwise doctor`: can this machine run a study, and if not, what to do about it."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer
from rich.text import Text

from meshwise.core.errors import ExitStatus
from meshwise.core.units import plural
from meshwise.report import edge
from meshwise.testbed.local.checks import CheckResult, Grade, all_checks

_MARK = {Grade.OK: "√", Grade.WARNING: "‼", Grade.FAILED: "×"}
_COLOUR = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.FAILED: "red"}


def doctor(
    short: Annotated[bool, typer.Option("--short", help="Only problems and the verdict.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the whole list as JSON.")] = False,
) -> None:
    """Check kernel, privileges, CPU, clock, memory, disk, limits, proxies and counters; each with its remedy.

    Exit status 3 if a study cannot run here. Takes about three seconds.

    Example: meshwise doctor
    """
    results = all_checks()
    if json:
        typer.echo(as_json(results))
    else:
        edge.console().print(coloured(as_text(results, short=short)), soft_wrap=True)
    raise typer.Exit(exit_status(results))


def exit_status(results: Sequence[CheckResult]) -> ExitStatus:
    failed = any(result.grade is Grade.FAILED for result in results)
    return ExitStatus.ENVIRONMENT if failed else ExitStatus.DONE


def verdict(results: Sequence[CheckResult]) -> str:
    """One sentence that can be pasted alone."""
    failed = sum(result.grade is Grade.FAILED for result in results)
    warned = sum(result.grade is Grade.WARNING for result in results)
    if failed:
        return f"A study cannot run here: {failed} of {len(results)} checks failed."
    doubts = f", with {plural(warned, 'warning')}" if warned else ""
    return f"A study can run here{doubts}."


def coloured(text: str) -> Text:
    """The text with its marks in colour."""
    found = Text(text)
    for grade, mark in _MARK.items():
        found.highlight_regex(f"(?m)^{mark}", _COLOUR[grade])
    return found


def as_text(results: Sequence[CheckResult], *, short: bool = False) -> str:
    """Like `linkerd check`: category, one line per check, remedies only where they are needed.

    `short`: what holds is left out.
    """
    if short:
        troubles = [result for result in results if result.grade is not Grade.OK]
        return "\n".join([*(_line(result) for result in troubles), verdict(results)])
    blocks = []
    for category, group in groupby(results, key=lambda result: result.category):
        lines = [category, "-" * len(category), *(_line(result) for result in group)]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, verdict(results)])


def _line(result: CheckResult) -> str:
    mark = _MARK[result.grade]
    if result.grade is Grade.OK:
        return f"{mark} {result.name}" + (f": {result.detail}" if result.detail else "")
    return f"{mark} {result.name}\n    {result.detail or 'it does not hold'}\n    hint: {result.remedy}"


def as_json(results: Sequence[CheckResult]) -> str:
    categories = [
        {"category": category, "checks": [_without_category(result) for result in group]}
        for category, group in groupby(results, key=lambda result: result.category)
    ]
    tree = {
        "ready": exit_status(results) is ExitStatus.DONE,
        "verdict": verdict(results),
        "categories": categories,
    }
    return json_module.dumps(tree, indent=2)


def _without_category(result: CheckResult) -> dict[str, str]:
    return {key: value for key, value in asdict(result).items() if key != "category"}
