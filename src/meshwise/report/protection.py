"""What every posture stops, on a terminal: a matrix per mesh in few characters, and what differs in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from meshwise.analysis.protection import Protected
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
    """One sentence for each attempt that the meshes stop from different postures on."""
    by_attempt: dict[str, dict[MeshName, list[Protected]]] = {}
    for one in found:
        if one.mesh is not MeshName.NONE:
            by_attempt.setdefault(one.attempt, {}).setdefault(one.mesh, []).append(one)
    for attempt, meshes in by_attempt.items():
        said = {mesh: _from(rows) for mesh, rows in meshes.items()}
        if len(said) > 1 and len(set(said.values())) > 1:
            yield f"{attempt}: " + "; ".join(f"{mesh} {words}" for mesh, words in said.items())


def _from(rows: Sequence[Protected]) -> str:
    """In which postures one mesh stops an attempt."""
    stopped = [row.posture for row in rows if row.outcome is AttemptOutcome.STOPPED]
    tried = [row.posture for row in rows if row.outcome is not AttemptOutcome.NOT_APPLICABLE]
    if not tried:
        return "knows nothing of it"
    if not stopped:
        return "stops it in none of the postures tried"
    if stopped == tried:
        return (
            "stops it in every posture" if len(tried) == len(rows) else "stops it wherever it means anything"
        )
    if tried[-len(stopped) :] == stopped:
        return f"stops it from {stopped[0]} on"
    return f"stops it in {', '.join(stopped)} only"
