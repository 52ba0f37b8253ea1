"""`meshwise run STUDY.yaml --out DIR`: run a study, in an isolated world that ends with the run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from meshwise.archive.read import stored_alone, stored_graph
from meshwise.archive.store import TrialStatus
from meshwise.cli.live_metrics import Tell, live_address, live_observer, serving
from meshwise.cli.parts import run_parts
from meshwise.cli.wiring import LevelOption, OutOption, ResumeOption, StudyArgument, not_applicable
from meshwise.core.units import format_duration, plural
from meshwise.mesh.binaries.store import OVERRIDES
from meshwise.runner.loop import RunSummary
from meshwise.study.design.blocks import design
from meshwise.study.file.read import load_study
from meshwise.study.model import Layer, Study
from meshwise.testbed.local.checks import preflight
from meshwise.testbed.local.world import enter_world


def run(
    study: StudyArgument,
    out: OutOption,
    resume: ResumeOption = False,
    level: LevelOption = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", help="Serve /metrics there while it runs: 127.0.0.1:PORT.", metavar="ADDRESS"
        ),
    ] = None,
) -> None:
    """Run a study on real proxies and store every trial.

    Needs root or an unprivileged user namespace (`meshwise doctor` tells). Ctrl-C, SIGTERM or SIGHUP ends
    it after clean-up and keeps what is complete (exit status 130); `--resume` continues there. Exit status 1
    if no trial could be measured, or if the books of the bank do not agree with what its clients were told.
    A study arranged together shows each step of the ladder with its interval so far, after every round.
    `--metrics` serves the same as Prometheus's text, from a process that runs when nothing else does.

    Example: meshwise run studies/quickstart.yaml --out my-study
    """
    question = load_study(study, not_applicable, level, stored_graph(out) if resume else None)
    if resume and (alone := stored_alone(out)) is not None:
        question = replace(question, alone=alone)
    trials = design(question)
    preflight(question)
    kept_visible = [out, *proxy_overrides(os.environ), *replayed(question)]

    def inside(tell: Tell | None = None) -> int:
        return run_parts(
            question,
            trials,
            out,
            resume,
            lambda stored: stopped_line(stored, study, out, question.layer),
            lambda summary, statuses: closing_line(summary, statuses, out),
            watch=(lambda machine: live_observer(tell, question, len(trials), machine)) if tell else None,
        )

    if metrics is None:
        raise typer.Exit(enter_world(inside, keep=kept_visible))
    with serving(live_address(metrics)) as tell:  # outside of the world, whose loopback nobody else reaches
        status = enter_world(lambda: inside(tell), keep=kept_visible)
    raise typer.Exit(status)


def proxy_overrides(environment: Mapping[str, str]) -> list[Path]:
    """The proxies that the user named."""
    return [Path(environment[name]) for name in OVERRIDES.values() if environment.get(name)]


def replayed(question: Study) -> list[Path]:
    """The trace that the load is."""
    trace = question.trial.shape.trace if question.trial.shape else None
    return [Path(trace.path)] if trace else []


def stopped_line(
    stored: int, study: Path, out: Path, level: Layer | None = None, command: str = "run"
) -> str:
    if not stored:
        return "stopped before a trial was complete"
    return (
        f"stopped; what is complete is kept: {plural(stored, 'trial')}; archive in {out}\n"
        f"next: meshwise {command} {shlex.quote(str(study))} --out {shlex.quote(str(out))} --resume"
        + (f" --level {level}" if level else "")
    )


def closing_line(
    summary: RunSummary, statuses: Mapping[str, TrialStatus], out: Path, *, shown: bool = False
) -> str:
    """What was done, what went wrong, where it is, and the command that comes next. `shown`: the findings
    follow at once."""
    total = summary.ok + summary.failed + summary.unproven
    share = summary.measured_s / summary.wall_s if summary.wall_s else 0.0
    troubles = [
        f"{count} {word}"
        for count, word in (
            (summary.failed, "failed"),
            (summary.unproven, "unproven"),
            (summary.violated, "in which money or an acknowledged transfer was lost or doubled"),
        )
        if count
    ]
    done = (
        f"{plural(total, 'trial')} in {format_duration(summary.wall_s * 1e9)}"
        f" ({share:.0%} of it in warm-up or measurement)"
        if total
        else f"nothing was left to do: {plural(len(statuses), 'trial')} stored"
    )
    where = shlex.quote(str(out))
    analyze = "" if shown else f"meshwise analyze {where} && "
    return (
        done
        + (f"; {', '.join(troubles)}" if troubles else "")
        + f"; archive in {out}\nnext: {analyze}meshwise report {where}"
    )
