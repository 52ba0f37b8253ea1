"""Fills the page: content and record in, one self-contained HTML text out.

Rules: whatever comes from a study, a proxy or a log is escaped (jinja2 autoescape; only our own SVG is passed
as markup); nothing is loaded from anywhere; no script.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import jinja2
from markupsafe import Markup

from meshwise import __version__
from meshwise.findings.subject import Kind
from meshwise.report import facts
from meshwise.report.html import values
from meshwise.report.protection import protection_line
from meshwise.report.record import PROOF_FACTS, Record
from meshwise.report.sections import Report
from meshwise.report.tradeoff import tradeoff_line
from meshwise.report.words import Footnotes, typeset
from meshwise.stats.verdict import Verdict


def render(report: Report, record: Record, directory: str = "DIR") -> str:
    """The whole page. `directory` stands in the commands that reproduce it."""
    content = report.content
    return _template().render(
        report=report,
        sections=report.on_page,
        content=content,
        record=record,
        css=Markup(_resource("page.css")),
        summary=values.summary(content),
        study_line=facts.study_line(content),
        noise_line=facts.noise_line(content),
        protection_line=protection_line(content),
        tradeoff_line=tradeoff_line(content),
        fake=facts.FAKE if content.fake else "",
        notes=Footnotes(),
        fine=[
            check.sentence or check.metric
            for check in content.of_kind(Kind.CHECK)
            if check.verdict is not Verdict.WARNING
        ],
        variance=values.variance(content),
        proof_facts=PROOF_FACTS,
        fidelity=facts.fidelity(content.environment),
        fairness=values.fairness(content),
        fairness_line=facts.fairness_line(content),
        environment=values.flat(content.environment, leave_out=("fidelity", "traits")),
        not_applicable=facts.not_applicable_lines(content),
        commands=values.commands(directory),
        version=__version__,
    )


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["coded"] = values.coded
    environment.filters["breakable"] = values.breakable
    environment.filters["typeset"] = typeset
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    return environment.from_string(_resource("page.html.j2"))


def _resource(name: str) -> str:
    return (files("meshwise.report.html") / name).read_text(encoding="utf-8")
