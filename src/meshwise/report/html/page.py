"""Fills the page: content and record in, one self-contained HTML text out.

Laws: whatever comes from a study, a proxy or a log is escaped (jinja2 autoescape; only our own SVG is passed
as markup); nothing is loaded from anywhere; no script.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import jinja2
from markupsafe import Markup

from meshwise import __version__
from meshwise.report import facts, saturation, sentences
from meshwise.report.content import Content
from meshwise.report.html import sections, topology
from meshwise.report.html.course import course_figures
from meshwise.report.html.growth import effect_sections
from meshwise.report.record import PROOF_FACTS, Record
from meshwise.report.words import Footnotes


def render(content: Content, record: Record, directory: str = "DIR") -> str:
    """The whole page. `directory` stands in the commands that reproduce it."""
    notes = Footnotes()
    effects = effect_sections(content, notes)
    parts = [sections.slice_section(content, part, record, notes) for part in content.slices]
    moving = [tuple(course_figures(part, record.courses)) for part in content.slices]
    return _template().render(
        content=content,
        record=record,
        css=Markup(_resource("page.css")),
        summary=sections.summary(content),
        sentences=sentences.closing(content),
        study_line=facts.study_line(content),
        noise_line=facts.noise_line(content),
        fake=facts.FAKE if content.fake else "",
        effect_sections=effects,
        parts=parts,
        courses={part.name: figures for part, figures in zip(parts, moving, strict=True)},
        topologies=topology.by_slice(content, [part.name for part in parts], record.topologies),
        notes=notes.lines(),
        saturation=saturation.section(content),
        load_line=facts.load_line(content),
        checks=sections.checks(content),
        variance=sections.variance(content),
        proof_facts=PROOF_FACTS,
        fidelity=facts.fidelity(content.environment),
        fairness=sections.fairness(content),
        fairness_line=facts.fairness_line(content),
        environment=sections.flat(content.environment, leave_out=("fidelity", "traits")),
        not_applicable=facts.not_applicable_lines(content),
        commands=sections.commands(content, directory),
        version=__version__,
    )


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["coded"] = sections.coded
    environment.filters["breakable"] = sections.breakable
    return environment.from_string(_resource("page.html.j2"))


def _resource(name: str) -> str:
    return (files("meshwise.report.html") / name).read_text(encoding="utf-8")
