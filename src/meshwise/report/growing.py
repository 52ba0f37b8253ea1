"""Sentences on what grows and what is dearer together. Told are no mesh and the highest posture of every
mesh, which is where a reader's bill lies; the tables have the rest."""

from __future__ import annotations

from meshwise.report.content import Content
from meshwise.report.growth import Growth, Line, growths, togethers
from meshwise.report.phrase import change, together


def of_growths(content: Content) -> list[str]:
    """`http1, each further chain node, istio strict: adds 98 us [96, 101] to p50 and ... (8 executions)`"""
    groups: dict[tuple[str, str], list[Growth]] = {}
    for growth in growths(content):
        groups.setdefault((growth.factor, growth.part), []).append(growth)
    found = []
    for group in groups.values():
        for setting in dict.fromkeys(setting for growth in group for setting in growth.settings):
            found.append(_of_growth(group, setting))
    return found


def _of_growth(group: list[Growth], setting: str) -> str:
    told = []
    for name in dict.fromkeys(line.name for growth in group for line in _told_lines(growth, setting)):
        phrases = [
            change(line.slope, growth.spoken_form, growth.titled.short)
            for growth in group
            for line in _told_lines(growth, setting)
            if line.name == name
        ]
        told.append(f"{'with' if name == 'no mesh' else 'in'} {name} it {together(phrases)}")
    step = group[0].step
    where = f"{setting}, {step}" if setting else step[0].upper() + step[1:]
    n = max(line.slope.n for line in group[0].lines)
    return f"{where}: {'; '.join(told)} ({n} executions)."


def _told_lines(growth: Growth, setting: str) -> list[Line]:
    """The highest posture of every mesh."""
    own = [line for line in growth.lines if line.setting == setting]
    return [
        [line for line in own if line.mesh == mesh][-1] for mesh in dict.fromkeys(line.mesh for line in own)
    ]


def of_togethers(content: Content) -> list[str]:
    """`http1, istio: having strict mTLS and ... together adds 3 us [1, 5] to p50 beyond the sum of ...`"""
    tables = togethers(content)
    places = dict.fromkeys((pair.setting, pair.mesh, pair.name) for table in tables for pair in table.pairs)
    found = []
    for place in places:
        told = [
            change(pair.interaction, table.form)
            for table in tables
            for pair in table.pairs
            if (pair.setting, pair.mesh, pair.name) == place and pair.interaction.verdict
        ]
        if told:
            setting, mesh, name = place
            where = ", ".join(part for part in (setting, mesh) if part)
            having = f"having {name.replace(' × ', ' and ')} together"
            found.append(f"{where}: {having} {together(told)} beyond the sum of the two alone.")
    return found
