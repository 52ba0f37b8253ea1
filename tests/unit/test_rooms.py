"""Imports run one way: a room imports only rooms to its left (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import meshwise

ROOMS = (
    *(
        "core",
        "stats",
        "study",
        "findings",
        "archive",
        "load",
        "service",
        "telemetry",
        "series",
        "mesh",
        "testbed",
    ),
    *("measure", "runner", "analysis", "report", "cli"),
)
ROOT = Path(meshwise.__file__).parent


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = path.relative_to(ROOT.parent).with_suffix("").parts[: -node.level]
                base = ".".join((*parents, base)).rstrip(".")
            modules |= {f"{base}.{alias.name}" for alias in node.names}
    return {module for module in modules if module.startswith("meshwise.")}


def _wrong_imports() -> list[str]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent == ROOT and path.stem == "__init__":
            continue
        room = _room(path)
        for module in _imported_modules(path):
            imported = module.split(".")[1]
            if imported in ROOMS and ROOMS.index(imported) > ROOMS.index(room):
                found.append(f"{path.relative_to(ROOT)} imports {module}")
    return found


def test_every_file_is_in_a_room() -> None:
    outside = {_room(path) for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"} - set(ROOMS)
    assert not outside


def test_imports_run_one_way() -> None:
    assert _wrong_imports() == []


def test_the_report_computes_nothing_from_requests() -> None:
    """Whatever a drawing needs is in findings.json."""
    raw = ("scan_requests", "scan_telemetry", "meshwise.measure", "meshwise.stats.regression")
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "report").rglob("*.py")
        for name in raw
        if name in path.read_text()
    ]
    assert found == []


def test_every_room_of_the_list_has_code() -> None:
    assert [room for room in ROOMS if not any((ROOT / room).rglob("*.py"))] == []


def test_a_class_name_stands_for_one_thing() -> None:
    defined: dict[str, list[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                defined.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    twice = {name: paths for name, paths in defined.items() if len(paths) > 1}
    assert list(twice) == ["AuthorizationPolicy"], twice  # both meshes have a kind of that name
