"""`meshwise mesh`: what meshwise makes of a mesh, beside what the mesh's own control plane makes of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from meshwise.cli.wiring import StudyArgument, not_applicable
from meshwise.core import messages
from meshwise.core.errors import ExitStatus
from meshwise.mesh.delivery.stream import SOURCES
from meshwise.mesh.istio.istiod import binary
from meshwise.mesh.istio.istiod.compare import ISTIO_PROXY, compare
from meshwise.mesh.istio.istiod.process import Istiod, running
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.istio.view import Options, View
from meshwise.report import edge
from meshwise.report.mesh_diff import ComparedConfiguration, document, is_equal, text
from meshwise.study.design.needs import environments_of
from meshwise.study.file.read import load_study
from meshwise.study.model import MeshName, Study
from meshwise.testbed.layout import lay_out

mesh = typer.Typer(
    help="Compare what meshwise generates with what a mesh's own control plane generates.\n\n"
    "Example: meshwise mesh diff studies/ladder.yaml",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@mesh.command()
def diff(
    study: StudyArgument,
    istiod: Annotated[
        Path | None,
        typer.Option(
            "--istiod", help="A pilot-discovery. Default: MESHWISE_ISTIOD, then a pulled one.", metavar="PATH"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every difference as JSON.")] = False,
) -> None:
    """List where the sidecars' configuration of a study differs from what the real istiod generates.

    istiod is started on loopback with the study's services, pods and resources, and asked as every sidecar
    would. Compared are the postures' configurations as for a proxy that has Istio's own filters; nothing is
    measured. Each difference is known, with its reason, or unknown. Exit status 0 if only known ones were
    found, 1 if others were, 3 without an istiod (`meshwise proxies pull istiod` gets one).

    Example: meshwise mesh diff studies/ladder.yaml --istiod ./pilot-discovery
    """
    question = load_study(study, not_applicable)
    asked = list(configurations(question))
    if not asked:
        raise messages.NOTHING_OF_ISTIO.error(str(study))
    path = binary.istiod_path(istiod)
    facts = binary.facts(path)
    console = edge.console(stderr=True)
    compared = []
    with (
        tempfile.TemporaryDirectory(prefix="meshwise-istiod-") as directory,
        running(path, Path(directory) / "istiod") as started,
        console.status("comparing"),
    ):
        for number, one in enumerate(asked):
            compared.append(_compared(started, one, number))
    if as_json:
        typer.echo(json.dumps(document(question.name, facts, compared), indent=1))
    else:
        edge.console().print(text(facts, compared), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(ExitStatus.DONE if is_equal(compared) else ExitStatus.ANSWER_IS_NO)


Configuration = tuple[Sequence[str], View, str]
"""Names of the cells that have it, what istiod would see, and the posture's resources."""


def configurations(study: Study) -> Iterator[Configuration]:
    """Each that is different, of all of the study's cells in Istio, as its environments place them."""
    model = IstioModel(Options(native=ISTIO_PROXY))
    cells = environments_of(study)
    found: dict[object, tuple[list[str], View, str]] = {}
    for environment in lay_out(study, Path("/nowhere")):
        placement = environment.placement
        if placement.mesh is not MeshName.ISTIO:
            continue
        order = study.environments.index(placement.mesh)
        for cell in cells[placement.process_set, order, placement.mesh]:
            resources = model.resources(cell, placement.trust_domain)
            view = model.view(placement, cell, "compared", SOURCES)
            key = (resources, tuple(each.workload for each in placement.workloads), view.options)
            names, _, _ = found.setdefault(key, ([], view, resources))
            if cell.name not in names:
                names.append(cell.name)
    yield from found.values()


def _compared(istiod: Istiod, asked: Configuration, number: int) -> ComparedConfiguration:
    names, view, resources = asked
    return ComparedConfiguration(tuple(names), compare(istiod, view, resources, number))
