"""What only the page shows, as plain values for the template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from meshwise.findings.metric import metric_of
from meshwise.findings.subject import Kind
from meshwise.report.content import Content
from meshwise.report.words import VerdictWords, typeset, verdict_words
from meshwise.study.model import MeshName

Change = tuple[str, str, VerdictWords]
"""Over no mesh with its unit, interval, verdict."""


def summary(content: Content) -> tuple[list[str], list[tuple[str, str, str, list[Change]]]]:
    """What the highest measured rung costs over no mesh: titles of the metrics, and per slice and mesh its
    label, mesh, rung and the change of each."""
    rows = []
    for part in content.slices:
        for mesh in part.meshes:
            found = []
            top = ""
            for metric in content.primary:
                ladder = part.ladder(metric)
                rungs = [r for r in ladder.rungs if r.mesh == mesh and r.over_none] if ladder else []
                if ladder is None or not rungs:
                    found.append(("", "", VerdictWords("")))
                    continue
                top, finding, form = rungs[-1].label, rungs[-1].over_none, ladder.form
                assert finding is not None
                change = typeset(f"{form.signed(finding.estimate)} {form.unit}")
                interval = typeset(form.interval(finding.low, finding.high))
                found.append((change, interval, verdict_words(finding, form)))
            if top:
                rows.append((part.label, mesh, top, found))
    return [metric_of(metric).short for metric in content.primary], rows


def coded(text: object) -> Markup:
    """Escaped, with `words in backticks` set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def breakable(text: object) -> Markup:
    """Escaped, with places where a long identity or cipher may be broken."""
    return Markup(re.sub(r"(?<=[^/])/(?=[^/])|_", r"\g<0><wbr>", str(escape(text))))


def variance(content: Content) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.sentence for f in content.of_kind(Kind.VARIANCE) if f.sentence))


def fairness(content: Content) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """The card's meshes, and its entries: what a study can make equal, what else differs, what is equal."""
    meshes = tuple(str(mesh) for mesh in MeshName if any(mesh in entry for entry in content.fairness))
    given = sorted(map(dict, content.fairness), key=_removable_first)
    return meshes, [
        entry
        | {mesh: _LONG_REVISION.sub(r"\1", str(entry.get(mesh, ""))) for mesh in meshes}
        | {"remedy": entry.get("removable") or (f"no: {why}" if (why := entry.get("why_not")) else "")}
        for entry in given
    ]


def _removable_first(entry: Mapping[str, Any]) -> tuple[bool, bool]:
    """What differs before what is equal, and of that what a study can make equal before what it cannot."""
    return bool(entry.get("equal", True)), bool(entry.get("why_not")) and not entry.get("removable")


_LONG_REVISION = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{32}\b")


def flat(
    value: Mapping[str, Any], prefix: str = "", leave_out: tuple[str, ...] = ()
) -> tuple[tuple[str, str], ...]:
    """A nested mapping as lines `a · b`: value."""
    lines: list[tuple[str, str]] = []
    for key, entry in value.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if key in leave_out:
            continue
        if isinstance(entry, Mapping):
            lines += flat(entry, f"{name} · ")
        elif isinstance(entry, list | tuple):
            lines.append((name, ", ".join(str(item) for item in entry) or "none"))
        else:
            lines.append((name, "unknown" if entry is None else str(entry)))
    return tuple(lines)


def commands(directory: str) -> tuple[str, ...]:
    return (
        f"meshwise run study.yaml --out {directory}",
        f"meshwise analyze {directory}",
        f"meshwise report {directory}",
    )
