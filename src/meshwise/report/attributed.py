"""Where a counted step is paid: a table by group of functions, and a difference flame graph per step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from meshwise.findings.finding import Finding
from meshwise.findings.metric import BY_GROUP, metric_of
from meshwise.findings.pictures import Flame
from meshwise.findings.subject import Kind, LadderStep
from meshwise.report import words
from meshwise.report.blocks import (
    Block,
    Drawing,
    Heading,
    Paragraph,
    Row,
    Setting,
    Table,
    TableColumn,
    mesh_column,
    mesh_entry,
)
from meshwise.report.content import CONTEXT, FREE, Content, Slice, form_of, half_width, variant_of
from meshwise.report.flame import flame_drawing

_ABOUT = (
    "A function's own instructions, by what it is for; ~: not distinguishable, as elsewhere. What a function "
    "calls is not among its own: memory that is copied for TLS is with the C library."
)
_DRAWN = (
    "Above, what a request costs at the upper rung: as wide as it is costly. Below, what changed: as wide as "
    "the change. Point at a box for its name and its numbers."
)
DIFFERENTIAL = (
    "{meshes}: differential only. Its program has no symbols, so counts of postures can be compared, and not "
    "attributed to functions{remedy}."
)
_REMEDIES = {
    "istio": "; MESHWISE_ENVOY may name a build of Envoy that has symbols",
    "linkerd": "; MESHWISE_LINKERD_PROXY may name a build that was not stripped",
}


def attributed(content: Content, part: Slice, name: str) -> Iterator[Block]:
    """Nothing where the counter tells no functions."""
    steps = [
        finding
        for finding in content.of_kind(Kind.INCREMENT)
        if finding.metric == BY_GROUP
        and isinstance(finding.subject, LadderStep)
        and finding.estimate is not None
        and _is_in(finding.levels, part)
    ]
    drawn = [flame for flame in content.pictures.flames if _is_in(flame.at, part)]
    if steps or drawn:
        yield Heading("Where a step is paid")
        yield Paragraph(_ABOUT)
    if steps:
        yield _table(steps, f"{name}-groups", many=len(part.meshes) > 1)
    if drawn:
        yield Paragraph(_DRAWN)
    for number, flame in enumerate(drawn, 1):
        title = f"{flame.at['mesh']}, {_step(flame.lower, flame.upper, flame.at, drawn)}"
        yield Drawing(Markup(flame_drawing(f"{name}-flame-{number}", title, flame)), title)


def differential_lines(content: Content) -> Iterator[Block]:
    """A line per mesh whose program has no symbols, where the counter could tell functions apart."""
    counting = content.study.get("counting")
    if not isinstance(counting, dict) or counting.get("counter") != "callgrind":
        return
    told = counting.get("attributed")
    if not isinstance(told, dict):
        return
    for mesh in (str(each) for each, known in told.items() if not known):
        yield Paragraph(DIFFERENTIAL.format(meshes=mesh, remedy=_REMEDIES.get(mesh, "")), page_only=False)


def _is_in(levels: object, part: Slice) -> bool:
    return isinstance(levels, dict) and all(levels.get(name) == part.levels[name] for name in CONTEXT)


def _step(lower: str, upper: str, levels: object, beside: Sequence[Finding | Flame]) -> str:
    """`strict → strict+fine`, with what else tells it from those beside it."""
    own = dict(levels) if isinstance(levels, dict) else {}
    varying = words.varying_within(
        [each.at if isinstance(each, Flame) else each.levels for each in beside], FREE
    )
    further = variant_of(own, varying)
    return f"{lower} → {upper}" + (f", {further}" if further else "")


def _table(steps: Sequence[Finding], name: str, *, many: bool) -> Table:
    """A row per step, a column per group, those that change most first."""
    form = form_of(steps)
    most: dict[str, float] = {}
    rows: dict[tuple[str, str], dict[str, Finding]] = {}
    for finding in sorted(steps, key=lambda each: words.rung_order(str(each.levels["posture"]))):
        assert isinstance(finding.subject, LadderStep)
        most[finding.part] = max(most.get(finding.part, 0.0), abs(finding.estimate or 0.0))
        label = _step(finding.subject.lower, finding.subject.upper, finding.levels, steps)
        rows.setdefault((str(finding.levels["mesh"]), label), {})[finding.part] = finding
    groups = sorted(most, key=lambda group: -most[group])
    return Table(
        name, f"{metric_of(BY_GROUP).title}, by group of functions: added by each step",
        (
            TableColumn("step", Setting.LABEL, ""), *mesh_column(many=many),
            *(TableColumn(group, spare=place >= 5) for place, group in enumerate(groups)),
        ),
        tuple(
            Row((label, *mesh_entry(mesh, many=many), *(_added(form, own.get(group)) for group in groups)))
            for (mesh, label), own in sorted(rows.items(), key=lambda each: each[0][0])
        ),
        caption="± is half the interval over lives of the proxies",
    )  # fmt: skip


def _added(form: words.Form, finding: Finding | None) -> str:
    if finding is None:
        return ""
    half = half_width(finding)
    sure = words.verdict_words(finding, form).sure
    return (
        form.signed(finding.estimate)
        + ("" if half is None else f" ±{form.value(half)}")
        + ("" if sure else " ~")
    )
