"""`meshwise protect STUDY.yaml`: try what every posture of a study should stop."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from meshwise.analysis.protection import Protected, protected
from meshwise.analysis.protection_findings import protection_findings
from meshwise.archive.outcome import ProtectionTry
from meshwise.archive.store import Archive
from meshwise.cli.run import proxy_overrides, replayed
from meshwise.cli.wiring import StudyArgument, control_plane_of, meshes_that_drain, not_applicable
from meshwise.core.errors import ExitStatus
from meshwise.core.patience import USUAL
from meshwise.mesh.protection.attempt import AttemptOutcome
from meshwise.mesh.protection.catalogue import ATTEMPTS
from meshwise.report import edge
from meshwise.report.protection import protection_blocks
from meshwise.report.terminal import show_blocks
from meshwise.runner.protect import Effort, Underway, question_of
from meshwise.runner.protect import protect as try_all
from meshwise.study.design.blocks import design
from meshwise.study.file.read import load_study
from meshwise.study.model import Study
from meshwise.testbed.local import calibration
from meshwise.testbed.local.checks import preflight
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import Testbed


def protect(
    study: StudyArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Where the tries are stored: a new directory, or an archive of the same study.",
            metavar="DIR",
        ),
    ] = None,
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
    kept_visible = [*([out] if out else []), *proxy_overrides(os.environ), *replayed(asked)]
    raise typer.Exit(enter_world(lambda: _protect(asked, question, effort, out, as_json), keep=kept_visible))


def _protect(asked: Study, question: Study, effort: Effort, out: Path | None, as_json: bool) -> int:
    console = edge.console(stderr=True)
    slowness = calibration.slowness(question)
    if said := calibration.words(slowness):
        console.print(said, markup=False, soft_wrap=True)
    patience = USUAL.slowed(slowness.factor)
    tries: list[ProtectionTry] = []
    with ExitStack() as stack:
        meshes = meshes_that_drain(question, stack.enter_context(control_plane_of(question, patience)))
        testbed = stack.enter_context(LocalTestbed(question, meshes, patience=patience))
        kept = KeptTries(stack.enter_context(_archive(asked, out, testbed)) if out else None, question)
        try:
            with _place(console) as observe:
                for one in try_all(question, testbed, ATTEMPTS, effort, observe):
                    if tries and _life_of(one) != _life_of(tries[-1]):
                        kept.keep(tries)
                    tries.append(one)
        except KeyboardInterrupt:
            console.print(_stopped(tries, out, kept=kept.keep(tries)), markup=False, soft_wrap=True)
            return edge.INTERRUPTED
        except BaseException:
            kept.keep(tries)
            raise
        kept.keep(tries)
    found = protected(tries, question.confidence)
    if as_json:
        typer.echo(json.dumps(document(found), indent=1))
    else:
        show_blocks(protection_blocks(list(protection_findings(tries, question.confidence))), edge.console())
        if out:
            typer.echo(
                f"kept in {out}; `meshwise analyze {out}` sets it beside what the postures cost", err=True
            )
    untried = any(each.outcome is AttemptOutcome.UNDECIDED and not each.n for each in found)
    return ExitStatus.ANSWER_IS_NO if untried else ExitStatus.DONE


def _archive(asked: Study, out: Path, testbed: Testbed) -> Archive:
    """The archive of this study, made if there is none."""
    found = (out / "design.parquet").exists()
    return Archive.start(out, asked, design(asked), testbed.environment(), resume=found)


class KeptTries:
    """What is stored, posture by posture, so that little is lost with a process that is killed. What an
    earlier run has stored stays until everything has been tried anew."""

    def __init__(self, archive: Archive | None, question: Study) -> None:
        self._archive, self._question = archive, question
        self._earlier = archive is not None and archive.protected

    def keep(self, tries: Sequence[ProtectionTry]) -> bool:
        """Whether these tries are stored now."""
        if self._archive is None or not tries or (self._earlier and not _whole(tries, self._question)):
            return False
        self._archive.keep_protection(tries)
        return True


def _life_of(one: ProtectionTry) -> tuple[int, str, str, str]:
    return one.execution, one.mesh, one.posture, one.protocol


def _stopped(tries: Sequence[ProtectionTry], out: Path | None, *, kept: bool) -> str:
    if kept:
        return f"stopped; {len(tries)} tries are kept in {out}; the same command tries everything anew"
    earlier = f", and {out} has what it had" if out else ""
    return f"stopped; nothing of it is kept{earlier}"


def _whole(tries: Sequence[ProtectionTry], question: Study) -> bool:
    """Everything was tried at least once; what a stopped run has does not replace what a whole one had."""
    due = sum(cell.protocol is attempt.protocol for cell in question.cells for attempt in ATTEMPTS)
    return len({(one.mesh, one.posture, one.attempt) for one in tries}) == due


@contextmanager
def _place(console: Console) -> Iterator[Callable[[Underway], None]]:
    """Where it is: one line that changes on a terminal, else a line per posture."""
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda now: status.update(escape(_line(now)))
        return
    said: set[tuple[str, str, int]] = set()

    def observe(now: Underway) -> None:
        if (key := (now.mesh, now.posture, now.execution)) not in said:
            said.add(key)
            console.print(f"{now.mesh} {now.posture} (execution {now.execution})", markup=False)

    yield observe


def _line(now: Underway) -> str:
    return f"{now.done}/{now.due} attempts: {now.mesh} {now.posture}, {now.attempt.key}"


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
