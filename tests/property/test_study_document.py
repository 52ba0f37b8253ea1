"""Whatever a study file holds, reading it ends with a study or with an error for people."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.study.file.document import parse_document
from meshwise.study.file.keys import StudyFile
from meshwise.study.file.read import parse_study

KEYS = [*StudyFile.model_fields, "rate", "posture", "same", "mtls", "x"]
SCALARS = st.one_of(
    st.sampled_from(
        ["strict", "none", "istio", "all", "3s", "800/s", "1KiB", "10%", "0", "-1", "1e9", "true", "~", ""]
    ),
    st.integers().map(str),
    st.text(max_size=6),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


def dump(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {dump(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(dump(inner) for inner in value) + "]"
    return str(value)


def refusal(text: str) -> MeshwiseError | None:
    try:
        parse_study(text, "s.yaml")
    except MeshwiseError as error:
        return error
    return None


def ends_well(text: str) -> None:
    error = refusal(text)
    assert error is None or error.exit_status is ExitStatus.BAD_INPUT
    assert error is None or error.where.startswith("s.yaml") or "s.yaml:" in error.what


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_structure_is_read_or_refused(value: dict[str, object]) -> None:
    ends_well("\n".join(f"{key}: {dump(inner)}" for key, inner in value.items()))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    ends_well(text)


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_every_value_has_a_place_inside_the_text(value: object) -> None:
    text = "a:\n  b: " + dump(value) + "\n"
    with contextlib.suppress(MeshwiseError):
        document = parse_document(text, "s.yaml")
        lines = text.splitlines()
        for place in (*document.value_places.values(), *document.key_places.values()):
            assert 1 <= place.line <= len(lines) + 1
            assert place.column >= 1
