"""`meshwise protect STUDY.yaml`: try what every posture of a study should stop."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from meshwise.analysis.protection import Protected, protected
from meshwise.cli.run import proxy_overrides
from meshwise.cli.wiring import meshes_that_drain, not_applicable
from meshwise.core.errors import ExitStatus
from meshwise.core.patience import USUAL
from meshwise.mesh.protection.attempt import AttemptOutcome
from meshwise.mesh.protection.catalogue import ATTEMPTS
from meshwise.report import edge
from meshwise.report.protection import lines
from meshwise.runner.protect import Effort, question_of
from meshwise.runner.protect import protect as try_all
from meshwise.study.file.read import load_study
from meshwise.study.model import Study
from meshwise.testbed.local import calibration
from meshwise.testbed.local.checks import preflight
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world


def protect(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.yaml")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what came of every attempt as JSON.")
    ] = False,
    tries: Annotated[
        int, typer.Option("--tries", help="Tries of each attempt in each execution.", min=1)
    ] = Effort.tries,
    executions: Annotated[
        int, typer.Option("--executions", help="Lives of the processes, each with fresh keys.", min=1)
    ] = Effort.executions,
) -> None:
    """Try what every posture of a study should stop, on real proxies, and say what was stopped.

    The study's meshes and postures are taken, once each; its load does not matter. Exit status 1 if an
    attempt could not be tried because its posture was not proven.

    Example: meshwise protect studies/ladder.yaml
    """
    asked = load_study(study, not_applicable)
    question = question_of(asked, ATTEMPTS, executions)
    preflight(question)
    effort = Effort(executions, tries)
    raise typer.Exit(
        enter_world(lambda: _protect(question, effort, as_json), keep=proxy_overrides(os.environ))
    )


def _protect(question: Study, effort: Effort, as_json: bool) -> int:
    patience = USUAL.slowed(calibration.slowness(question).factor)
    with LocalTestbed(question, meshes_that_drain(question), patience=patience) as testbed:
        tries = list(try_all(question, testbed, ATTEMPTS, effort, lambda _: None))
    found = protected(tries, question.confidence)
    if as_json:
        typer.echo(json.dumps(document(found), indent=1))
    else:
        edge.console().print("\n".join(lines(found)), markup=False, highlight=False, soft_wrap=True)
    untried = any(each.outcome is AttemptOutcome.UNDECIDED and not each.n for each in found)
    return ExitStatus.ANSWER_IS_NO if untried else ExitStatus.DONE


def document(found: Sequence[Protected]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "attempts": [
            {
                "mesh": str(each.mesh),
                "posture": each.posture,
                "attempt": each.attempt,
                "outcome": str(each.outcome),
                "n": each.n,
                "low": each.low,
                "high": each.high,
                "expected": str(each.expected) if each.expected else None,
                "surprising": each.surprising,
                "evidence": each.evidence.facts,
            }
            for each in found
        ]
    }
