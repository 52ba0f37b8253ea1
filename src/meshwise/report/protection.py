"""What every posture stops: what surprised, how much of it, how the meshes differ, and a matrix per mesh. It
picks from the findings; it computes nothing."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from meshwise.core.units import plural
from meshwise.findings.finding import Finding
from meshwise.findings.protection import DECIDED, AttemptOutcome, AttemptTries
from meshwise.findings.subject import Kind, PostureProtection, Protection
from meshwise.mesh.protection.catalogue import BY_KEY
from meshwise.report import words
from meshwise.report.blocks import (
    Block,
    Bounds,
    Details,
    Entry,
    Paragraph,
    Row,
    Section,
    Sentences,
    Setting,
    Sign,
    Table,
    TableColumn,
    mesh_column,
    mesh_entry,
)
from meshwise.report.charts import slug
from meshwise.report.content import Content
from meshwise.study.model import NO_MESH

HOW_TO = "not tried; `meshwise protect STUDY.yaml --out DIR` tries what each posture stops"
SIGNS = {
    AttemptOutcome.STOPPED: "stopped",
    AttemptOutcome.LET_THROUGH: "through",
    AttemptOutcome.NOT_APPLICABLE: "-",
    AttemptOutcome.UNDECIDED: "?",
}
_LEGEND = (
    "through: the service answered, or the plaintext was found; -: means nothing there; ?: undecided; "
    "*: not as documented; !: a proxy ended or fell silent"
)
_PAGE_LEGEND = (
    "✓ stopped; ✗ let through: the service answered, or the plaintext was found; – not applicable: it means "
    "nothing there; ? undecided; * not as documented; ! a proxy ended or fell silent"
)
_ABOUT = (
    "Attempts are made on running proxies, each several times. They are no sample of all that somebody may "
    "try, so a number of attempts has no confidence interval: its interval goes from what was stopped in "
    "every try to what with it was stopped in some tries only, or is undecided."
)


def protection_line(content: Content) -> str:
    """What was tried, or how to: one line of the head. Empty without a mesh."""
    found = [finding for finding in content.findings if finding.tried]
    if not found:
        return HOW_TO if any(part.meshes for part in (*content.slices, *content.counted)) else ""
    postures = {_place(finding) for finding in found}
    attempts = {_attempt(finding) for finding in found}
    tries = sum(_tried(finding).tries for finding in found)
    surprising = sum(_tried(finding).surprising for finding in found)
    doubt = (
        f"{plural(surprising, 'outcome')} not as documented" if surprising else "every outcome as documented"
    )
    return (
        f"{plural(len(attempts), 'attempt')} against {plural(len(postures), 'posture')} in "
        f"{tries} tries; {doubt}"
    )


def section(content: Content) -> Section | None:
    """None where nothing was tried."""
    blocks = tuple(protection_blocks(content.findings))
    return Section("protection", "Protection", blocks, "protection") if blocks else None


def highest(content: Content) -> Iterator[str]:
    """What the highest posture of every mesh stops."""
    found = [finding for finding in content.findings if isinstance(finding.subject, PostureProtection)]
    order = sorted(found, key=lambda each: words.rung_order(_place(each)[1]))
    by_mesh = {_place(each)[0]: each.sentence for each in order}
    yield from (sentence for mesh, sentence in by_mesh.items() if mesh != "none")


def protection_blocks(findings: Sequence[Finding]) -> Iterator[Block]:
    """What surprised comes first."""
    found = [finding for finding in findings if isinstance(finding.subject, Protection) and finding.tried]
    if not found:
        return
    yield Paragraph(_ABOUT, page_only=False)
    if untried := _untried(findings, found):
        yield Paragraph(f"Not tried: {', '.join(untried)}.", page_only=False)
    if surprises := tuple(_surprises(found)):
        yield Sentences(surprises, "what surprises")
    yield _summary([each for each in findings if isinstance(each.subject, PostureProtection)])
    if told := tuple(differences(found)):
        yield Sentences(told, "how the meshes differ, where an attempt means something in both")
    meshes = list(dict.fromkeys(_place(each)[0] for each in found))
    for mesh in [mesh for mesh in meshes if mesh != "none"] or meshes:
        shown = [each for each in found if _place(each)[0] in (mesh, "none")]
        yield from _matrices(mesh, shown)
    if undecided := tuple(_undecided(found)):
        yield Sentences(undecided, "undecided")
    yield Details("Evidence of every outcome", tuple(_evidence(mesh, found) for mesh in meshes))
    yield Details("What each attempt is", (_attempts(found),))


def _untried(findings: Sequence[Finding], found: Sequence[Finding]) -> list[str]:
    """Postures of the study that attempts were not made against, as where somebody stopped them."""
    tried = set(map(_place, found))
    levels = (each.levels for each in findings if each.kind is Kind.LEVEL)
    places = dict.fromkeys((str(at["mesh"]), str(at["posture"])) for at in levels if "posture" in at)
    left = [place for place in places if place not in tried]
    return ["no mesh" if mesh == "none" else f"{mesh} {posture}" for mesh, posture in left]


def _place(finding: Finding) -> tuple[str, str]:
    return str(finding.levels["mesh"]), str(finding.levels["posture"])


def _attempt(finding: Finding) -> str:
    assert isinstance(finding.subject, Protection)
    return finding.subject.attempt


def _tried(finding: Finding) -> AttemptTries:
    assert finding.tried is not None
    return finding.tried


def _outcome(finding: Finding) -> AttemptOutcome:
    return AttemptOutcome(_tried(finding).outcome)


def _surprises(found: Sequence[Finding]) -> Iterator[str]:
    """Of one mesh and attempt once, with its other postures; then what ended or silenced a proxy."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for each in found:
        if _tried(each).surprising:
            key = _place(each)[0], _attempt(each), _tried(each).outcome
            groups.setdefault(key, []).append(each)
    for own in groups.values():
        yield _with_others(own)
    harmed: dict[tuple[str, str], list[Finding]] = {}
    for each in found:
        if _tried(each).harmed and not _tried(each).surprising:
            harmed.setdefault((_place(each)[0], _attempt(each)), []).append(each)
    for own in harmed.values():
        flags = "; ".join(flag.words for flag in own[0].flags if flag.code == "proxy_harmed")
        yield f"{_with_others(own).removesuffix('.')}: {flags}."


def _undecided(found: Sequence[Finding]) -> Iterator[str]:
    """What is undecided for the same reason is told once per posture: one that was not proven leaves every
    attempt untried."""
    groups: dict[tuple[tuple[str, str], str], list[Finding]] = {}
    meant = Counter(_place(each) for each in found if _outcome(each) is not AttemptOutcome.NOT_APPLICABLE)
    for each in found:
        if _outcome(each) is AttemptOutcome.UNDECIDED:
            tried = _tried(each)
            differs = tried.stopped and tried.let_through
            groups.setdefault((_place(each), each.id if differs else tried.evidence), []).append(each)
    for ((mesh, posture), evidence), own in groups.items():
        if len(own) == 1:
            yield own[0].sentence
        elif len(own) == meant[mesh, posture]:
            yield f"{mesh} `{posture}`: undecided ({evidence}): every attempt that means something there."
        else:
            attempts = ", ".join(f"`{_attempt(each)}`" for each in own)
            yield f"{mesh} `{posture}`: undecided ({evidence}): {attempts}."


def _with_others(own: Sequence[Finding]) -> str:
    """The first finding's sentence, and where the same holds."""
    others = ", ".join(f"`{_place(each)[1]}`" for each in own[1:])
    return own[0].sentence + (f" Likewise in {others}." if others else "")


def _summary(found: Sequence[Finding]) -> Table:
    many = len({_place(each)[0] for each in found} - {"none"}) > 1
    rows = []
    order = sorted(found, key=lambda each: words.rung_order(_place(each)[1]))
    for each in order:
        mesh, posture = _place(each)
        counts = each.attempts
        assert counts is not None
        rows.append(
            Row(
                (
                    posture,
                    *mesh_entry(mesh, many=many),
                    f"{each.estimate:.0f}",
                    Bounds(f"{each.low:.0f}", f"{each.high:.0f}"),
                    str(each.n),
                    *(str(count) if count else "" for count in (
                        counts.let_through, counts.differing + counts.undecided, counts.not_applicable,
                        counts.surprising,
                    )),
                )
            )
        )  # fmt: skip
    return Table(
        "protection-summary", "attempts stopped in every try",
        (
            TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many),
            TableColumn("stopped", Setting.STRONG), TableColumn("interval", Setting.INTERVAL),
            TableColumn("of"), TableColumn("let through", short="through"),
            TableColumn("undecided", short="open"),
            TableColumn("not applicable", short="n/a"), TableColumn("not as documented", short="surprises"),
        ),
        tuple(rows),
        caption="of those that mean something there; undecided: nothing was shown, or tries differ",
    )  # fmt: skip


def differences(found: Sequence[Finding]) -> Iterator[str]:
    """One sentence for each way in which two meshes differ in the same postures, with its attempts. Where
    some of these are undecided it says of which it speaks."""
    by_attempt: dict[str, dict[str, dict[str, Finding]]] = {}
    undecided: set[tuple[str, str]] = set()
    for each in found:
        mesh, posture = _place(each)
        if posture != NO_MESH.name and _outcome(each) in DECIDED:
            by_attempt.setdefault(_attempt(each), {}).setdefault(mesh, {})[posture] = each
        elif _outcome(each) is AttemptOutcome.UNDECIDED:
            undecided.add((_attempt(each), posture))
    said: dict[str, list[str]] = {}
    for attempt, meshes in by_attempt.items():
        for (mesh, rows), (other, others) in itertools.combinations(meshes.items(), 2):
            common = [posture for posture in rows if posture in others]
            if any(_outcome(rows[posture]) is not _outcome(others[posture]) for posture in common):
                told = f"{mesh} {_where(rows, common)}, {other} {_where(others, common)}"
                if any((attempt, posture) in undecided for posture in {*rows, *others}):
                    told = f"of {', '.join(f'`{each}`' for each in common)} (others are undecided): {told}"
                said.setdefault(told, []).append(f"`{attempt}`")
    yield from (f"{told}: {', '.join(attempts)}." for told, attempts in said.items())


def _where(rows: Mapping[str, Finding], postures: Sequence[str]) -> str:
    """In which of these postures, in the order of the ladder, a mesh stops an attempt."""
    stopped = [posture for posture in postures if _outcome(rows[posture]) is AttemptOutcome.STOPPED]
    if not stopped:
        return "stops in no posture"
    if stopped == list(postures):
        return "stops in every posture" if len(postures) > 1 else f"stops in `{postures[0]}`"
    if postures[-len(stopped) :] == stopped:
        return f"stops from `{stopped[0]}` on" if len(stopped) > 1 else f"stops in `{stopped[0]}` only"
    return f"stops in {', '.join(f'`{posture}`' for posture in stopped)} only"


def _matrices(mesh: str, found: Sequence[Finding]) -> Iterator[Table]:
    """Every attempt on the page; for a terminal those of one kind that have the same outcomes in one row."""
    postures = sorted({_place(each)[1] for each in found}, key=words.rung_order)
    at = {(_place(each)[1], _attempt(each)): each for each in found}
    attempts = list(dict.fromkeys(_attempt(each) for each in found))
    whos = list(dict.fromkeys(map(_who, attempts)))
    attempts.sort(key=lambda attempt: whos.index(_who(attempt)))  # those of one attacker stand together
    rows = tuple(
        Row((attempt, *(_sign(at.get((posture, attempt))) for posture in postures)), _who(attempt))
        for attempt in attempts
    )
    title = "what no mesh stops" if mesh == "none" else f"what {mesh} stops"
    columns = (
        TableColumn("attempt", Setting.LABEL, ""),
        *(TableColumn(posture, Setting.OUTCOME, posture.replace("+", "+\n")) for posture in postures),
    )
    name = f"protection-{slug(mesh)}"
    yield Table(name, title, columns, rows, caption=_PAGE_LEGEND, page_only=True)
    folded = tuple(_folded(rows))
    about = f"{_LEGEND}; name-* (n): n attempts with the same outcomes" * (len(folded) < len(rows))
    yield Table(
        f"{name}-folded", title, columns, folded, caption=about or _LEGEND, dense=True, terminal_only=True
    )


def _who(attempt: str) -> str:
    known = BY_KEY.get(attempt)
    return known.who if known else "not known to this meshwise"


def _sign(finding: Finding | None) -> Sign:
    if finding is None:
        return Sign("", "")
    tried = _tried(finding)
    marks = "*" * tried.surprising + "!" * bool(tried.harmed)
    return Sign(SIGNS[_outcome(finding)], tried.outcome, marks)


def _folded(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows that differ in nothing but the rest of the attempt's name as one: `token-* (9)`."""
    groups: dict[tuple[str, tuple[Entry, ...]], list[Row]] = {}
    for row in rows:
        kind = str(row.entries[0]).partition("-")[0]
        groups.setdefault((kind, row.entries[1:]), []).append(row)
    for (kind, signs), own in groups.items():
        label = f"{kind}-* ({len(own)})" if len(own) > 1 else own[0].entries[0]
        yield Row((label, *signs))


def _evidence(mesh: str, found: Sequence[Finding]) -> Table:
    """A row per attempt, outcome and evidence, with the postures that share them."""
    groups: dict[tuple[str, str, int, int, str], list[Finding]] = {}
    for each in found:
        if _place(each)[0] == mesh:
            tried = _tried(each)
            key = _attempt(each), tried.outcome, tried.stopped, tried.tries, tried.evidence
            groups.setdefault(key, []).append(each)
    rows = tuple(
        Row(
            (
                attempt,
                ", ".join(_place(each)[1] for each in own),
                _spoken(outcome),
                f"{stopped} of {tries}" if tries else "",
                _share(own[0]),
                evidence,
            )
        )
        for (attempt, outcome, stopped, tries, evidence), own in groups.items()
    )
    confidence = next((f"{each.confidence:.0%} " for each in found), "")
    columns = (
        TableColumn("attempt", Setting.LABEL, ""), TableColumn("postures", Setting.PROSE),
        TableColumn("outcome", Setting.PROSE), TableColumn("tries stopped"),
        TableColumn(f"{confidence}interval, %", Setting.INTERVAL),
        TableColumn("evidence", Setting.PROSE),
    )  # fmt: skip
    return Table(f"protection-evidence-{slug(mesh)}", "no mesh" if mesh == "none" else mesh, columns, rows)


def _spoken(outcome: str) -> str:
    return outcome.replace("_", " ")


def _share(finding: Finding) -> str:
    if finding.low is None or finding.high is None:
        return ""
    return str(Bounds(f"{100 * finding.low:.0f}", f"{100 * finding.high:.0f}"))


def _attempts(found: Sequence[Finding]) -> Table:
    known = [BY_KEY[key] for key in dict.fromkeys(map(_attempt, found)) if key in BY_KEY]
    rows = tuple(
        Row(
            (
                each.key,
                each.words,
                each.must,
                "; ".join(dict.fromkeys(d.source for d in each.documented.values())),
            )
        )
        for each in known
    )
    columns = (
        TableColumn("attempt", Setting.LABEL, ""), TableColumn("who, where, how", Setting.PROSE),
        TableColumn("what stopping it means", Setting.PROSE), TableColumn("documented in", Setting.PROSE),
    )  # fmt: skip
    return Table("protection-attempts", "attempts", columns, rows)
