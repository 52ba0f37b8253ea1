"""Writes the tables of docs/query.md from the views themselves: `python scripts/query_page.py [--check]`.

With --check it writes nothing and ends with status 1 when the page is not what it would write.
"""

from __future__ import annotations

import sys
from pathlib import Path

from meshwise.archive.schema import OF_A_TRIAL, TABLES
from meshwise.archive.views import VIEWS, TableView, type_words, unit_of

TARGET = Path(__file__).parents[1] / "docs/query.md"
STORED = frozenset(spec.name for spec in TABLES)
PER_TRIAL = frozenset(spec.name for spec in OF_A_TRIAL)
LINE = "do not edit below this line.\n"


def page(before: str) -> str:
    """The page as it stands, with the tables as they are now: those of the archive by name, whose columns
    docs/archive.md has, and the others with their columns."""
    head, line, _ = before.partition(LINE)
    stored = [view for view in VIEWS if view.name in STORED]
    rows = [f"| [`{view.name}`](archive.md#{_anchor(view.name)}) | {view.about} |" for view in stored]
    table = "\n".join(["| table | rows |", "|---|---|", *rows])
    made = "".join(_section(view) for view in VIEWS if view.name not in STORED)
    return f"{head}{line}\n{table}\n{made}"


def _anchor(table: str) -> str:
    return f"{table}trialparquet" if table in PER_TRIAL else f"{table}parquet"


def _section(view: TableView) -> str:
    rows = [
        f"| `{column.name}` | {type_words(column.type)} | {unit_of(column.name)} | {column.meaning} |"
        for column in view.columns
    ]
    head = f"\n### `{view.name}`\n\n{view.about[0].upper()}{view.about[1:]}.\n\n"
    return head + "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows]) + "\n"


def main() -> int:
    text = TARGET.read_text()
    if "--check" in sys.argv[1:]:
        return int(text != page(text))
    TARGET.write_text(page(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
