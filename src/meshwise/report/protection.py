"""What every posture stops, on a terminal: a matrix per mesh in few characters, and what differs in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from meshwise.analysis.protection import DECIDED, Protected
from meshwise.mesh.protection.attempt import AttemptOutcome
from meshwise.study.model import MeshName

SIGNS = {
    AttemptOutcome.STOPPED: "stopped",
    AttemptOutcome.LET_THROUGH: "through",
    AttemptOutcome.NOT_APPLICABLE: "-",
    AttemptOutcome.UNDECIDED: "?",
}
LEGEND = "through: the service answered, or the plaintext was found; -: means nothing there; ?: undecided;"
SURPRISE, HARM = "*", "!"


def lines(found: Sequence[Protected]) -> Iterator[str]:
    """A matrix per mesh, then one line for every surprise, then one for every difference between meshes."""
    for mesh in dict.fromkeys(each.mesh for each in found):
        yield from _matrix(mesh, [each for each in found if each.mesh is mesh])
        yield ""
    yield f"{LEGEND} {SURPRISE} not as documented; {HARM} a proxy ended or fell silent"
    yield from (f"{SURPRISE} {surprise(each)}" for each in found if each.surprising)
    yield from (
        f"{HARM} {each.mesh} {each.posture}, {each.attempt}: {each.evidence.harm}"
        for each in found
        if each.harmed
    )
    yield from (
        f"? {each.mesh} {each.posture}, {each.attempt}: stopped in {each.stopped} of {each.n} decided tries"
        f" ({each.evidence})"
        for each in found
        if each.outcome is AttemptOutcome.UNDECIDED
    )
    yield from differences(found)


def _matrix(mesh: MeshName, found: Sequence[Protected]) -> Iterator[str]:
    postures = list(dict.fromkeys(each.posture for each in found))
    names = list(dict.fromkeys(each.attempt for each in found))
    at = {(each.posture, each.attempt): each for each in found}
    width = max(map(len, (*names, mesh)))
    columns = [max(len(posture), 9) for posture in postures]
    yield "  ".join(
        [
            str(mesh).ljust(width),
            *(name.ljust(size) for name, size in zip(postures, columns, strict=True)),
        ]
    ).rstrip()
    for name in names:
        signs = [_sign(at[posture, name]) if (posture, name) in at else "" for posture in postures]
        padded = (sign.ljust(size) for sign, size in zip(signs, columns, strict=True))
        yield "  ".join([name.ljust(width), *padded]).rstrip()


def _sign(one: Protected) -> str:
    marks = (SURPRISE if one.surprising else "") + (HARM if one.harmed else "")
    return SIGNS[one.outcome] + marks


def surprise(one: Protected) -> str:
    words = {AttemptOutcome.STOPPED: "stopped", AttemptOutcome.LET_THROUGH: "let through"}
    assert one.expected is not None, "only what is documented surprises"
    return (
        f"{one.mesh} {one.posture}, {one.attempt}: expected {words[one.expected]}, was {words[one.outcome]}"
        f" in {one.n} of {one.n} tries ({one.evidence})"
    )


def differences(found: Iterable[Protected]) -> Iterator[str]:
    """One sentence for each way in which two meshes differ in the same postures, with its attempts."""
    by_attempt: dict[str, dict[MeshName, dict[str, Protected]]] = {}
    for one in found:
        if one.mesh is not MeshName.NONE and one.outcome in DECIDED:
            by_attempt.setdefault(one.attempt, {}).setdefault(one.mesh, {})[one.posture] = one
    said: dict[str, list[str]] = {}
    for attempt, meshes in by_attempt.items():
        for (mesh, rows), (other, others) in itertools.combinations(meshes.items(), 2):
            common = [posture for posture in rows if posture in others]
            if any(rows[posture].outcome is not others[posture].outcome for posture in common):
                words = f"{mesh} {_where(rows, common)}, {other} {_where(others, common)}"
                said.setdefault(words, []).append(attempt)
    yield from (f"{words}: {', '.join(attempts)}" for words, attempts in said.items())


def _where(rows: Mapping[str, Protected], postures: Sequence[str]) -> str:
    """In which of these postures, in the order of the ladder, a mesh stops an attempt."""
    stopped = [posture for posture in postures if rows[posture].outcome is AttemptOutcome.STOPPED]
    if not stopped:
        return "stops in no posture"
    if stopped == list(postures):
        return "stops in every posture" if len(postures) > 1 else f"stops in {postures[0]}"
    if postures[-len(stopped) :] == stopped:
        return f"stops from {stopped[0]} on" if len(stopped) > 1 else f"stops in {stopped[0]} only"
    return f"stops in {', '.join(stopped)} only"
