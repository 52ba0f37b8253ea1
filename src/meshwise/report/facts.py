"""What was measured, where, and how fair it is, in single lines; from `study` and `environment`.

Both are open mappings (docs/archive.md): what is absent is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from meshwise.core.units import format_size, plural
from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.subject import MeshDifference, NoiseFloor, StepDifference
from meshwise.report import words
from meshwise.report.content import CONTEXT, Content, variant_of
from meshwise.study.model import MeshName
from meshwise.study.topology import TopologyKind

FAKE = "these numbers come from the fake testbed: no proxy ran, nothing was measured"


def study_line(content: Content) -> str:
    """Size of the study, machine, proxies, and the levels that are the same everywhere."""
    parts = [*_sizes(content), *machine_words(content.environment)]
    parts += [f"{mesh}: {build}" for mesh, build in builds(content.environment)]
    moving = [f"load: {shape}"] if (shape := load_line(content)) else []
    return " · ".join([*parts, *constant_levels(content), *moving])


def _sizes(content: Content) -> Iterator[str]:
    for name, word in (("blocks", "block"), ("executions", "execution")):
        if isinstance(count := content.study.get(name), int):
            yield plural(count, word)
    if total := sum(content.statuses.values()):
        troubles = [f"{count} {word}" for word, count in content.statuses.items() if count and word != "ok"]
        yield plural(total, "trial") + (f" ({', '.join(troubles)})" if troubles else "")


def machine(environment: Mapping[str, Any]) -> Mapping[str, Any]:
    """The facts about the machine, wherever the testbed put them."""
    for name in ("host", "machine", "system"):
        if isinstance(found := environment.get(name), Mapping):
            return found
    return environment


def machine_words(environment: Mapping[str, Any]) -> list[str]:
    facts = machine(environment)
    found = []
    if model := facts.get("cpu_model") or facts.get("cpu"):
        found.append(f"{facts['cpus']} x {model}" if facts.get("cpus") else str(model))
    if isinstance(memory := facts.get("memory_bytes"), int):
        found.append(format_size(memory))
    if kernel := facts.get("kernel"):
        found.append(f"Linux {kernel}")
    slowness = environment.get("slowness", 1)
    if isinstance(slowness, int | float) and slowness != 1:
        found.append(f"{slowness:g} times slower at the start than when idle")
    return found


_REVISION_DIGITS = 8


def builds(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Mesh and its proxy: `istio`, `Envoy 1.40.0 (9e558093, BoringSSL)`; `none` has no proxy."""
    proxies = environment.get("proxies")
    found = []
    for mesh, facts in proxies.items() if isinstance(proxies, Mapping) else ():
        if mesh == "none" or not isinstance(facts, Mapping):
            continue
        parts = [str(facts[name]) for name in ("proxy", "version") if facts.get(name)]
        label = " ".join(parts) or str(facts.get("build", "unknown build"))
        marks = [str(facts.get("revision", ""))[:_REVISION_DIGITS], str(facts.get("tls_library", ""))]
        if known := ", ".join(mark for mark in marks if mark):
            label += f" ({known})"
        found.append((str(mesh), label))
    return found


def constant_levels(content: Content) -> list[str]:
    """Levels that all slices share: `800/s`, `response 1KiB`."""
    if not content.slices:
        return []
    found = []
    bank = all(part.levels.get("shape") == TopologyKind.BANK for part in content.slices)
    for name in CONTEXT[1:]:
        values = {part.levels.get(name) for part in content.slices}
        value = next(iter(values))
        if len(values) > 1 or value is None or words.is_neutral(name, value):
            continue
        if name == "shape" or (bank and name in ("request_bytes", "response_bytes")):
            continue  # what the bank sends is its operations' own
        if name == "length":
            shape = content.slices[0].levels.get("shape") or "chain"
            given = {"graph": "a service graph", "bank": "the bank"}
            if value == 1:
                given["chain"] = "point to point"
            found.append(given.get(str(shape)) or f"{shape} of {value}")
        else:
            found.append(words.level(name, value))
    return found


def load_line(content: Content) -> str:
    """How the load moved within a trial; empty if it did not."""
    return str(content.study.get("load_shape") or "")


def fidelity(environment: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Known differences from the real mesh: `code`, `what`, `effect`, perhaps `mesh`."""
    return tuple(_entries(environment.get("fidelity")))


def _entries(found: Any, mesh: str = "") -> Iterator[Mapping[str, Any]]:
    if isinstance(found, Mapping):
        if "what" in found:
            yield {"mesh": mesh} | dict(found)
        else:
            for name, entries in found.items():
                yield from _entries(entries, str(name))
    elif isinstance(found, list | tuple):
        for entry in found:
            yield from _entries(entry, mesh)


def fairness_line(content: Content) -> str:
    """How far the meshes are on equal terms, and which differences a study can remove."""
    entries = content.fairness
    if not entries:
        return ""
    unequal = [entry for entry in entries if not entry.get("equal", True)]
    meshes = " and ".join(mesh for mesh in MeshName if mesh in entries[0])
    if not unequal:
        return f"{meshes} are equal in all {len(entries)} points of the card"
    line = f"{meshes} differ in {len(unequal)} of {len(entries)} points"
    removable = [str(entry["what"]) for entry in unequal if entry.get("removable")]
    if not removable:
        return f"{line}, none of which a study can make equal"
    return f"{line}, of which a study can make equal: {', '.join(removable)}"


def fidelity_line(content: Content) -> str:
    gaps = fidelity(content.environment)
    lines = [line] if (line := fairness_line(content)) else []
    if gaps:
        first, rest = str(gaps[0]["what"]), len(gaps) - 1
        more = f"; {rest} more in report.html" if rest else ""
        lines.append(f"{plural(len(gaps), 'known difference')} from the real mesh: {first}{more}")
    return "; ".join(lines) or "no difference from the real mesh is recorded"


def floors(content: Content) -> tuple[tuple[str, Finding], ...]:
    """Control and noise floor of the primary metrics, `same` before `twin`."""
    found = [
        (finding.subject.control, finding)
        for finding in content.findings
        if isinstance(finding.subject, NoiseFloor)
        and finding.metric in content.primary
        and not finding.part
        and finding.estimate is not None
    ]
    found.sort(key=lambda each: (each[0], content.primary.index(each[1].metric)))
    return tuple(found)


def noise_line(content: Content) -> str:
    """What the A/A control shows, per metric for every control that was run; smaller effects are noise."""
    by_metric: dict[str, list[Finding]] = {}
    controls = [each for each in floors(content) if each[0] != "halves"]
    for _, finding in controls:
        by_metric.setdefault(finding.metric, []).append(finding)
    if not by_metric and not content.slices and content.counted:
        return "of times none, as nothing was timed; counts have a rule of their own, which stands with them"
    if not by_metric:
        return f"no A/A control was run, so no noise floor is known{_halves_words(content)}"
    texts = []
    for metric, found in by_metric.items():
        form = words.form_for(found[0].unit, [f.estimate for f in found], [f.estimate for f in found])
        numbers = " / ".join(form.value(finding.estimate) for finding in found)
        texts.append(f"{metric_of(metric).short} {numbers} {form.unit}")
    names = " / ".join(dict.fromkeys(control for control, _ in controls))
    return f"A/A floor, {names} processes: {', '.join(texts)}{_halves_words(content)}"


def _halves_words(content: Content) -> str:
    """What halves of one arm's requests show; empty where the study did not ask."""
    found = [finding for control, finding in floors(content) if control == "halves"]
    forms = [words.form_for(each.unit, [each.estimate], [each.estimate]) for each in found]
    texts = [
        f"{metric_of(each.metric).short} {form.with_unit(each.estimate)}"
        for each, form in zip(found, forms, strict=True)
    ]
    return f"; time alone, halves of one arm: {', '.join(texts)}" if texts else ""


def difference_name(finding: Finding) -> str:
    """`istio - linkerd`."""
    match finding.subject:
        case MeshDifference(_, first, second) | StepDifference(_, first, second):
            return f"{first} - {second}"
        case _:
            return "difference"


def difference_place(finding: Finding, free: Sequence[str] = ()) -> str:
    """At which rung, or of which step, two meshes are compared; `free`: the factors that vary at a rung."""
    at = finding.levels
    match finding.subject:
        case StepDifference(_, _, _, lower, upper):
            place = f"{lower} → {upper}"
        case _:
            place = str(at["posture"])
    varying = [name for name in free if name in at] if "posture" in at else []
    return ", ".join(part for part in (place, variant_of(at, varying)) if part)


def not_applicable_lines(content: Content) -> list[str]:
    """One line per posture of a mesh that could not be expressed, with the protocols that this concerns."""
    protocols: dict[tuple[str, str, str], dict[str, None]] = {}
    for entry in content.study.get("not_applicable") or ():
        place = str(entry["mesh"]), str(entry["posture"]), str(entry["reason"])
        protocols.setdefault(place, {})[str(entry["protocol"])] = None
    return [
        f"{mesh} {posture} ({', '.join(found)}) is not applicable: {reason}"
        for (mesh, posture, reason), found in protocols.items()
    ]
