"""Problems of a study file, gathered so that all are shown at once, each with its place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError, Message
from meshwise.study.file.document import Document, Path

MAX_SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at a path of the document."""

    path: Path
    message: Message
    facts: Mapping[str, object]
    at_key: bool = False
    """Whether the key, not its value, is what is wrong."""


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """`; did you mean `x`?`, or nothing when nothing is near."""
    near = difflib.get_close_matches(text.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def impossible(path: Path, reason: str, remedy: str) -> Problem:
    return Problem(path, messages.IMPOSSIBLE, {"reason": reason, "remedy": remedy})


_LONG = re.compile(r"[^\s`]{300,}|[^`]{1000,}")
_SHOWN = 80
"""Characters of a long value: enough to know it by, where the file says the rest."""


def _brief(facts: Mapping[str, object]) -> Mapping[str, object]:
    """The facts with what was given at length cut short, so that the error is read and not scrolled."""

    def cut(found: re.Match[str]) -> str:
        return f"{found[0][:_SHOWN]}... ({len(found[0]):,} characters)"

    return {name: _LONG.sub(cut, fact) if isinstance(fact, str) else fact for name, fact in facts.items()}


def to_error(document: Document, problems: Sequence[Problem]) -> MeshwiseError:
    """One problem is itself the error; several become one error that lists them in the file's order."""
    errors = sorted(
        (
            problem.message.error(document.where(problem.path, key=problem.at_key), **_brief(problem.facts))
            for problem in problems
        ),
        key=lambda error: [int(part) for part in error.where.rsplit(":", 2)[1:] if part.isdigit()],
    )
    errors = list({str(error): error for error in errors}.values())
    if len(errors) == 1:
        return errors[0]
    lines = [f"{error.where}: {error.what} [{error.code}]\n  hint: {error.remedy}" for error in errors]
    if len(lines) > MAX_SHOWN:
        lines[MAX_SHOWN:] = [f"... and {len(lines) - MAX_SHOWN} more"]
    return messages.STUDY_PROBLEMS.error(count=len(errors), problems="\n".join(lines))
