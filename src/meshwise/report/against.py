"""A count against an earlier one: as a table, as Markdown, and as JUnit for a build server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self
from xml.etree import ElementTree

from meshwise.analysis.baseline import Comparison, CountChange
from meshwise.findings.finding import Finding, Provenance
from meshwise.findings.subject import Kind, LadderStep, Slope
from meshwise.report import words
from meshwise.report.blocks import Bounds, Judged, Row, Setting, Table, TableColumn
from meshwise.report.content import CONTEXT, FREE, form_of, means
from meshwise.report.words import Form, VerdictWords


@dataclass(frozen=True)
class ShownChange:
    """A change in the report's words."""

    now: Finding
    beyond: bool
    """The noise rule."""
    judged: bool
    """False: shown only."""
    form: Form
    then_text: str
    now_text: str
    change: str
    bounds: Bounds
    rule: str
    varying: Sequence[str]
    """Factors whose levels have to be said."""

    @classmethod
    def of(cls, change: CountChange, alpha: float, varying: Sequence[str]) -> Self:
        form = form_of([change.then, change.now])
        shown, unit = (words.Form("%", 0.01, 2), " %") if change.share else (form, "")
        found = change.share or change.difference
        return cls(
            now=change.now,
            beyond=change.beyond(alpha),
            judged=change.is_judged,
            form=form,
            then_text=form.value(change.then.estimate),
            now_text=form.value(change.now.estimate),
            change=f"{shown.signed(found.estimate)}{unit}",
            bounds=Bounds(shown.bound(found.low), shown.bound(found.high)),
            rule=f"{shown.value(change.rule)}{unit}",
            varying=varying,
        )

    @property
    def name(self) -> str:
        """`istio strict, 10 policies: instructions per request (node-1)`."""
        at, subject = self.now.levels, self.now.subject
        place = f"{at['mesh']} {at['posture']}"
        if isinstance(subject, LadderStep):
            place = f"{at['mesh']} {subject.lower} → {subject.upper}"
        further = _further(self.now, self.varying)
        place = ", ".join([place, *further])
        whose = f" ({self.now.part})" if self.now.part else ""
        return f"{place}: {self.now.key.entry.short}{whose}"

    @property
    def heading(self) -> str:
        """The name, with the unit where the numbers beside it are not in the finding's own."""
        return f"{self.name}, {self.form.unit}" if self.form.unit != self.now.unit else self.name

    @property
    def where(self) -> str:
        """`level`, `step`, `slope`."""
        if isinstance(self.now.subject, Slope):
            return "slope"
        return "level" if self.now.kind is Kind.LEVEL else "step"

    @property
    def verdict(self) -> VerdictWords:
        if not self.judged:
            return VerdictWords("not judged", "they vary with how busy the machine is")
        return (
            VerdictWords("changed", sure=True)
            if self.beyond
            else VerdictWords("~ no change", f"rule {self.rule}")
        )

    @property
    def sentence(self) -> str:
        unit = self.form.unit
        told = f"{self.now_text} {unit}, {self.then_text} before: {self.change} {self.bounds}"
        if not self.judged:
            return f"{self.name} is {told}, which is not judged"
        return f"{self.name} is {told}" + (
            f", beyond the noise rule of {self.rule}" if self.beyond else f", within {self.rule}"
        )


def shown_changes(comparison: Comparison) -> list[ShownChange]:
    scopes = [each.now.levels for each in comparison.changes if each.now.kind is Kind.LEVEL]
    varying = words.varying_within(scopes, (*CONTEXT, *FREE))
    return [ShownChange.of(each, comparison.alpha, varying) for each in comparison.changes]


def _further(finding: Finding, varying: Sequence[str]) -> list[str]:
    """Levels of what varies, beside mesh and posture, and means something there."""
    at = finding.levels
    names = [name for name in varying if name in at and means(name, str(at["posture"]))]
    return [str(at[name]) if name == "protocol" else words.level(name, at[name]) for name in names]


def verdict_line(shown: Sequence[ShownChange], name: str, comparison: Comparison) -> str:
    changed, missing = sum(each.beyond for each in shown), len(comparison.only_then)
    gone = f"; {missing} of its counts are not there any more" if missing else ""
    lost = "".join(f"; {_lost(each)}" for each in comparison.lost)
    judged = sum(each.judged for each in shown)
    return f"{changed or 'none'} of {judged} counts changed against {name}{gone}{lost}"


def _lost(finding: Finding) -> str:
    return (
        f"{finding.levels['mesh']} {finding.levels['posture']} ({finding.id}) was to be counted and was not"
    )


def table(shown: Sequence[ShownChange]) -> Table:
    """The changed ones first; of the rest the sums only."""
    picked = [each for each in shown if each.beyond]
    picked += [each for each in shown if not each.beyond and not each.now.part]
    columns = (
        TableColumn("what", Setting.PROSE, ""), TableColumn("before"), TableColumn("now", Setting.STRONG),
        TableColumn("change", Setting.STRONG), TableColumn("interval", Setting.INTERVAL),
        TableColumn("verdict", Setting.VERDICT),
    )  # fmt: skip
    rows = tuple(
        Row((each.heading, each.then_text, each.now_text, each.change, each.bounds, Judged(each.verdict)))
        for each in picked
    )
    return Table("against", "Against the earlier count", columns, rows, dense=True)


def markdown(shown: Sequence[ShownChange], name: str, comparison: Comparison) -> str:
    """For a comment on a change."""
    lines = [f"**{verdict_line(shown, name, comparison)}**", ""]
    lines += ["| | before | now | change | interval | |", "|---|--:|--:|--:|--:|---|"]
    for row in table(shown).rows:
        cells = [str(entry).replace("|", "\\|") for entry in row.entries]
        changed = cells[-1] == "changed"
        lines.append(
            f"| {' | '.join([*cells[:3], f'**{cells[3]}**' if changed else cells[3], *cells[4:]])} |"
        )
    lines += [f"\nNot counted any more: `{each}`" for each in comparison.only_then]
    return "\n".join(lines) + "\n"


def junit(shown: Sequence[ShownChange], study: str, comparison: Comparison) -> str:
    """One test case per count; it fails if the count changed beyond the noise rule, and is an error if the
    cell was to be counted and was not."""
    failures, errors = str(sum(each.beyond for each in shown)), str(len(comparison.lost))
    tests = str(len(shown) + len(comparison.lost))
    suite = ElementTree.Element(
        "testsuite", name=f"meshwise count {study}", tests=tests, failures=failures, errors=errors
    )
    for each in shown:
        case = ElementTree.SubElement(suite, "testcase", classname=each.where, name=each.now.id)
        if each.beyond:
            ElementTree.SubElement(case, "failure", message=each.sentence).text = each.sentence
    for lost in comparison.lost:
        case = ElementTree.SubElement(suite, "testcase", classname="level", name=lost.id)
        ElementTree.SubElement(case, "error", message=_lost(lost)).text = _lost(lost)
    root = ElementTree.Element("testsuites", tests=tests, failures=failures, errors=errors)
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def as_json(shown: Sequence[ShownChange]) -> Iterator[dict[str, Any]]:
    for each in shown:
        yield {
            "id": each.now.id,
            "changed": each.beyond,
            "sentence": each.sentence,
            "provenance": str(Provenance.COUNTED),
        }
