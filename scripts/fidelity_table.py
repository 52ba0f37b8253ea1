"""Writes the table of docs/fidelity.md from the texts that every report shows.

    python scripts/fidelity_table.py            # into the page, between its two marks
    python scripts/fidelity_table.py --check    # exit 1 if the page is not current

The table comes from both meshes' `fidelity` and the local testbed; the prose is written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from meshwise.mesh.istio import fidelity
from meshwise.mesh.linkerd import fidelity as linkerd
from meshwise.mesh.seam import Fidelity
from meshwise.testbed.local.facts import COUNTED_FIDELITY, FIDELITY, TRACED_FIDELITY

PAGE = Path(__file__).resolve().parent.parent / "docs" / "fidelity.md"
BEGIN, END = "<!-- table: begin (scripts/fidelity_table.py) -->", "<!-- table: end -->"


def table(differences: Sequence[Fidelity]) -> str:
    """One row per difference, in the order of the reports."""
    rows = [f"| `{each.code}` | {each.what} | {each.effect} |" for each in differences]
    return "\n".join(["| Code | What differs | Effect on the numbers |", "|---|---|---|", *rows])


def current(page: str) -> str:
    """The page with its table made anew. Raises ValueError when it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE} has no {BEGIN if not begin else END}")
    made = table([*FIDELITY, *COUNTED_FIDELITY, *TRACED_FIDELITY, *fidelity.ALL, *linkerd.ALL])
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def main() -> int:
    page = PAGE.read_text()
    made = current(page)
    if "--check" in sys.argv[1:]:
        return int(made != page)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
