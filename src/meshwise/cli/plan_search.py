"""What `plan` says of a search for saturation: how it goes, and what bounds its time."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from meshwise.core.units import format_duration, format_size
from meshwise.study.design.estimate import Estimate, longest_search_s
from meshwise.study.design.rounds import block_tasks
from meshwise.study.design.search import GROWTH, RESOLUTION, most_steps, usual_steps
from meshwise.study.model import Search, Study


def search_document(study: Study) -> dict[str, Any] | None:
    """How the rate is searched, and how long a search takes at most; None for a study without one."""
    if study.search is None:
        return None
    return {
        "objective": study.search.objective.words,
        "start_rps": study.search.start_rps,
        "limit_rps": study.search.limit_rps,
        "soak_s": study.search.soak_ns / 1e9,
        "soak_share": study.search.soak_share,
        "descend": study.search.descend,
        "usual_steps": usual_steps(study.search),
        "most_steps": most_steps(study.search),
        "longest_search_s": round(longest_search_s(study, study.search), 1),
    }


def show_search(study: Study, search: Search, expected: Estimate, console: Console) -> None:
    """What is searched for, how, and what bounds its time."""
    searches = study.blocks * len(block_tasks(study))
    at_most = longest_search_s(study, search) * searches
    console.print(Text(f"saturation: the highest rate that holds {search.objective.words} for a whole trial"))
    console.print(
        Text(
            f"{len(block_tasks(study))} searches a block, {study.blocks} blocks in {study.executions}"
            f" executions = {searches} searches: from {search.start_rps:g}/s up by {GROWTH:g} to the first"
            f" rate that breaks (at most {search.limit_rps:g}/s), then halving to {RESOLUTION - 1:.0%};"
            f" both ends confirmed by {search.confirm} equal trials" + _afterwards(search)
        )
    )
    console.print(
        Text.assemble(
            f"about {usual_steps(search)} trials a search of {format_duration(study.trial.warmup_ns)} warm-up"
            f" and {format_duration(study.trial.duration_ns)}: about ",
            (format_duration(expected.wall_s * 1e9), "bold"),
            f", at most {format_duration(at_most * 1e9)} ({most_steps(search)} trials a search);"
            f" about {format_size(expected.disk_bytes)} on disk",
        )
    )


def _afterwards(search: Search) -> str:
    """What follows the search, in words."""
    soak = f", then a soak of {format_duration(search.soak_ns)} at {search.soak_share:.0%} of the rate found"
    down = ", then down from it, once rested and once from overload"
    return (soak if search.soak_ns else "") + (down if search.descend else "")
