"""Text from outside: metrics of any labels are read back, resources of any shape are read or refused."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import linkerd_samples as samples

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.hello import parse_server_hello
from meshwise.mesh.linkerd import posture
from meshwise.mesh.linkerd.admin import parse as parse_metrics
from meshwise.mesh.linkerd.resources import parse as parse_resources
from meshwise.study.model import LADDER

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True)
VALUES = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=30)


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@given(NAMES, st.dictionaries(NAMES, VALUES | st.just("a\nb"), min_size=1, max_size=5), st.floats(0, 1e12))
def test_a_series_is_read_back(name: str, labels: dict[str, str], value: float) -> None:
    inside = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    (read,) = parse_metrics(f"# TYPE {name} counter\n{name}{{{inside}}} {value!r}\n", {name})
    assert (read.name, dict(read.labels), read.value) == (name, labels, value)


DOCUMENTS = list(yaml.safe_load_all(posture.resources(replace(samples.CELL, posture=LADDER[4]))))
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
CHANGED = LEAVES | st.lists(LEAVES, max_size=2)


@settings(deadline=None)
@given(st.data())
def test_damaged_resources_are_read_or_refused(data: st.DataObject) -> None:
    """One place of a document is replaced, removed or added to; at most a MeshwiseError comes of it."""
    document = yaml.safe_load(yaml.safe_dump(data.draw(st.sampled_from(DOCUMENTS))))
    place = document
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            change = data.draw(st.sampled_from(("replace", "remove", "add")))
            if change == "remove":
                del place[key]
            else:
                place[key if change == "replace" else "unknown"] = data.draw(CHANGED)
            break
        place = place[key]
    with contextlib.suppress(MeshwiseError):
        parse_resources(yaml.safe_dump(document))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_choice_or_an_error_that_the_prober_expects(message: bytes) -> None:
    with contextlib.suppress(ValueError, struct.error, IndexError):
        parse_server_hello(message)
