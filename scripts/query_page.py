"""Writes the tables of docs/query.md from the views themselves: `python scripts/query_page.py [--check]`.

With --check it writes nothing and ends with status 1 when the page is not what it would write.
"""

from __future__ import annotations

import sys
from pathlib import Path

from meshwise.archive.views import VIEWS, TableView, type_words, unit_of

TARGET = Path(__file__).parents[1] / "docs/query.md"
LINE = "do not edit below this line.\n"


def page(before: str) -> str:
    """The page as it stands, with the tables as they are now."""
    head, line, _ = before.partition(LINE)
    return head + line + "".join(map(_section, VIEWS))


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
