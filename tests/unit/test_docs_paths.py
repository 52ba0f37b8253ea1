"""What documents name exists: files, folders, anchors, `make` targets and commands of meshwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshwise.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/meshwise"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
MODULES = sorted(
    path for room in ("src", "tests", "benchmarks", "scripts") for path in (ROOT / room).rglob("*.py")
)
FILE = r"[\w][\w.-]*(?:/[\w.-]+)+\.(?:py|md|yaml|sh|svg|png)"


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def _code(text: str) -> list[str]:
    """What stands in backticks, and each line of a block between fences."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [*re.findall(r"`([^`\n]+)`", text), *(line for block in blocks for line in block.splitlines())]


def _there(text: str, page: Path) -> bool:
    """Whether the path leads somewhere from the page, the repository, or its source."""
    return any((base / text).exists() for base in (page.parent, ROOT, SOURCE))


def _ours(text: str) -> bool:
    """Whether the path begins at a folder of the repository or a room; others are upstream's."""
    first = text.split("/")[0]
    return (ROOT / first).is_dir() or (SOURCE / first).is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = {text for code in _code(page.read_text()) for text in re.findall(FILE, code)}
    assert [text for text in sorted(named) if _ours(text) and not _there(text, page)] == []


def test_every_test_benchmark_script_and_page_that_the_source_names_is_there() -> None:
    lost = [
        f"{module.relative_to(ROOT)}: {text}"
        for module in MODULES
        for text in re.findall(
            r"(?<![\w./-])(?:tests|benchmarks|scripts)/[\w./-]+\.(?:py|sh)|\bdocs/[\w-]+\.md",
            module.read_text(),
        )
        if not (ROOT / text).exists()
    ]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_command_that_a_page_names_is_there(page: Path) -> None:
    code = _code(page.read_text())
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = {words[1] for each in code if (words := each.split())[:1] == ["make"] and len(words) > 1}
    assert asked - set(targets) == set()
    commands = {words[1] for each in code if (words := each.split())[:1] == ["meshwise"] and len(words) > 1}
    assert {each for each in commands if re.fullmatch(r"[a-z]+", each)} - set(COMMANDS) == set()
