"""Writes the tables of docs/protection.md: `python scripts/protection_page.py [--check] [ARCHIVE]`.

The table of attempts comes from the code; with an ARCHIVE (of `meshwise protect ... --out`) the matrix of
what was seen is written too. With --check nothing is written, and the exit status is 1 when the table of
attempts is not what the code says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from meshwise.analysis.protection import Protected, protected
from meshwise.archive.read import ArchiveReader
from meshwise.mesh.protection.attempt import Attempt, AttemptOutcome
from meshwise.mesh.protection.catalogue import ATTEMPTS
from meshwise.study.model import LADDER, MeshName

TARGET = Path(__file__).parents[1] / "docs/protection.md"
MESHES = (MeshName.ISTIO, MeshName.LINKERD)
SIGNS = {
    AttemptOutcome.STOPPED: "stopped",
    AttemptOutcome.LET_THROUGH: "through",
    AttemptOutcome.NOT_APPLICABLE: "–",
    AttemptOutcome.UNDECIDED: "?",
}


def attempts_table() -> str:
    """Every attempt with the first posture that should stop it, and why one may expect it."""
    rows = [
        "| attempt | who, where, how | Istio stops it from | Linkerd stops it from |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| `{each.key}` | {each.words} | {_first(each, MESHES[0])} | {_first(each, MESHES[1])} |"
        for each in ATTEMPTS
    ]
    return "\n".join(rows)


def _first(attempt: Attempt, mesh: MeshName) -> str:
    told = attempt.documented[mesh]
    reasons = {posture: attempt.not_applicable(mesh, posture) for posture in LADDER}
    if all(reasons.values()):
        return f"means nothing: {next(iter(reasons.values()))}"
    stops = [posture.name for posture in LADDER if not reasons[posture] and told.stops.by(posture)]
    return f"{stops[0] if stops else 'no posture'} ({told.source})"


def matrix(found: Sequence[Protected]) -> Iterator[str]:
    """A table per mesh, as it was seen."""
    for mesh in dict.fromkeys(each.mesh for each in found):
        rows = [each for each in found if each.mesh is mesh]
        postures = list(dict.fromkeys(each.posture for each in rows))
        at = {(each.attempt, each.posture): each for each in rows}
        yield f"### {'Without a mesh' if mesh is MeshName.NONE else mesh.capitalize()}"
        yield ""
        yield f"| attempt | {' | '.join(postures)} |"
        yield f"|---|{'---|' * len(postures)}"
        for attempt in dict.fromkeys(each.attempt for each in rows):
            cells = [at[attempt, posture] for posture in postures]
            signs = [SIGNS[one.outcome] + (" *" if one.surprising else "") for one in cells]
            yield f"| `{attempt}` | {' | '.join(signs)} |"
        yield ""


def replaced(text: str, name: str, content: str) -> str:
    """The page with what stands between the two marks of that name exchanged."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    head, rest = text.split(begin)
    return head + begin + content.rstrip() + "\n" + end + rest.split(end)[1]


def main(words: Sequence[str]) -> int:
    archives = [Path(word) for word in words if word != "--check"]
    before = TARGET.read_text()
    text = replaced(before, "attempts", attempts_table())
    for archive in archives:
        found = protected(ArchiveReader.open(archive).protection())
        text = replaced(text, "seen", "\n".join(matrix(found)))
    if "--check" in words:
        return int(text != before)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
