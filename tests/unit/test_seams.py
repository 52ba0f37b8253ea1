"""Every seam has one conformance suite, and whatever in `src` implements a seam is run through it.

Read from the source alone: a class implements a seam when it has all of the seam's members, its own or its
parents'; it is run through the suite when a test class under the suite names it, in its name or in its code.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import meshwise

SOURCE = Path(meshwise.__file__).parent
TESTS = Path(__file__).parent.parent
SUITES = {
    "Application": "ApplicationConformance",
    "AttackStage": "StageConformance",
    "CountedProcess": "CounterConformance",
    "Counter": "CounterConformance",
    "Delivery": "DeliveryConformance",
    "LocalMesh": "MeshConformance",
    "MeshModel": "MeshConformance",
    "RawLine": "LineConformance",
    "Reach": "ReachConformance",
    "Sampler": "SamplerConformance",
    "Schedule": "walk",
    "Testbed": "BedConformance",
    "WireProtocol": "WireConformance",
}
"""Where a suite is a function, what is run through it are its arguments."""
AS_PART = {"NoneModel": "NoneMesh", "IstioModel": "IstioMesh", "LinkerdModel": "LinkerdMesh"}
"""Made by another class, through which its seam is tried."""


@cache
def names(node: ast.AST) -> set[str]:
    """Every name and attribute in this code."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def parents(of: ast.ClassDef) -> set[str]:
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in of.bases]
    return {base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in bases}


@cache
def members(of: ast.ClassDef) -> set[str]:
    """Methods with their brackets; properties, annotated names, and what methods put on `self`."""
    own = set()
    for each in of.body:
        if isinstance(each, ast.FunctionDef):
            read = any("property" in name for one in each.decorator_list for name in names(one))
            own.add(each.name if read else f"{each.name}()")
    for node in ast.walk(of):
        if isinstance(node, ast.Assign):
            parts = [each for target in node.targets for each in getattr(target, "elts", [target])]
        else:
            parts = [node.target] if isinstance(node, ast.AnnAssign) else []
        own |= {part.attr for part in parts if isinstance(part, ast.Attribute)}
        own |= {part.id for part in parts if isinstance(part, ast.Name)}
    return own


def classes(root: Path) -> list[ast.ClassDef]:
    """Those of the modules themselves; where there may be protocols, those within others too."""
    found: list[ast.AST] = []
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(text := path.read_text())
        found += ast.walk(tree) if "Protocol)" in text or "Protocol[" in text else tree.body
    return [node for node in found if isinstance(node, ast.ClassDef)]


IN_SOURCE = classes(SOURCE)
CLASSES: Mapping[str, ast.ClassDef] = {each.name: each for each in IN_SOURCE}
PROTOCOLS = {name: each for name, each in CLASSES.items() if "Protocol" in parents(each)}
IN_TESTS = classes(TESTS)


def all_members(of: ast.ClassDef) -> set[str]:
    return members(of).union(*(all_members(CLASSES[name]) for name in parents(of) & set(CLASSES)))


def implementations(seam: str) -> set[str]:
    """Not a private class that others extend: what it has is tried through them."""
    wanted = members(PROTOCOLS[seam])
    shared = {name for each in IN_SOURCE for name in parents(each) if name.startswith("_")}
    own = [each for each in IN_SOURCE if each.name not in PROTOCOLS and each.name not in shared]
    return {each.name for each in own if wanted <= all_members(each)}


def run_through(suite: str) -> set[str]:
    """Every name in the code of test classes under this suite, and the rest of their own names behind `Test`;
    or what the function is called with."""
    under = {suite}
    while grown := {each.name for each in IN_TESTS if parents(each) & under} - under:
        under |= grown
    tests = [each for each in IN_TESTS if each.name in under - {suite}]
    found = {each.name.removeprefix("Test") for each in tests}.union(*map(names, tests))
    return found | arguments(suite)


def arguments(function: str) -> set[str]:
    """Every name that stands in a call of this function."""
    texts = [text for path in TESTS.rglob("*.py") if f" {function}(" in (text := path.read_text())]
    calls = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    called = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == function]
    return set().union(*(names(argument) for node in called for argument in node.args))


def test_every_seam_has_a_suite_which_it_names() -> None:
    assert set(PROTOCOLS) == set(SUITES)
    defined = {
        node.name: path
        for path in sorted((TESTS / "support").glob("*_conformance.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    for seam, suite in SUITES.items():
        told = ast.get_docstring(PROTOCOLS[seam]) or ""
        assert f"`tests/support/{defined[suite].name}`" in told, seam
    suites = {name for name in defined if name.endswith("Conformance")}
    assert suites <= set(SUITES.values()), "a suite of no seam"


def test_the_documentation_lists_the_seams() -> None:
    text = (TESTS.parent / "docs" / "architecture.md").read_text()
    (told,) = [part for part in text.split("\n\n") if part.startswith("The seams, the only")]
    assert {name for name in CLASSES if f"`{name}`" in told} == set(SUITES)


def test_whatever_implements_a_seam_is_run_through_its_suite() -> None:
    missing = {}
    for seam, suite in SUITES.items():
        found = {AS_PART.get(name, name) for name in implementations(seam)}
        assert found, seam
        missing[seam] = found - run_through(suite)
    assert not {seam: left for seam, left in missing.items() if left}


def test_every_suite_has_a_fake() -> None:
    """A class of the tests that has all members of the seam."""
    inside = {each.name: members(each) for each in IN_TESTS}
    for seam, suite in SUITES.items():
        wanted = members(PROTOCOLS[seam])
        fakes = {name for name, own in inside.items() if wanted <= own}
        fakes |= {name for name in implementations(seam) if name.startswith("Fake")}
        fakes = {{"NotesModel": "NotesMesh"}.get(name, name) for name in fakes}
        assert fakes & run_through(suite), seam
