"""What a workload demands stands above the posture, and is written down once, as widely as it holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.mesh_graph import shop_cell

from meshwise.study.demands import effective_posture, modes
from meshwise.study.model import LADDER, NO_MESH, MeshName, MtlsMode

PLAINTEXT, PERMISSIVE, STRICT, NAMESPACE, _ = LADDER


@pytest.mark.parametrize(
    ("posture", "wanted"),
    [
        (
            STRICT,
            {
                "front": "strict", "cart": "strict", "catalog": "permissive", "pricing": "strict+fine",
                "legacy": "plaintext", "store": "strict+namespace",
            },
        ),
        (
            PLAINTEXT,
            {
                "front": "plaintext", "cart": "plaintext", "catalog": "permissive", "pricing": "strict+fine",
                "legacy": "plaintext", "store": "strict+namespace",
            },
        ),
        (NO_MESH, dict.fromkeys(("front", "cart", "catalog", "pricing", "legacy", "store"), "none")),
    ],
)  # fmt: skip
def test_effective_postures(posture: object, wanted: dict[str, str]) -> None:
    cell = replace(shop_cell(MeshName.NONE), posture=posture)  # type: ignore[arg-type]
    found = {w.name: effective_posture(cell, w).name for w in cell.topology.workloads[1:]}
    assert found == wanted


def test_one_word_for_a_namespace_that_agrees_and_one_for_a_workload_that_differs() -> None:
    found = modes(shop_cell(posture=PERMISSIVE))
    assert found.mesh is MtlsMode.PERMISSIVE
    assert found.namespaces == {"legacy": MtlsMode.DISABLE, "stores": MtlsMode.STRICT}, "open has it already"
    assert found.workloads == {"pricing": MtlsMode.STRICT}
    assert found.of_namespace("open") is MtlsMode.PERMISSIVE
    assert found.of_namespace("stores") is MtlsMode.STRICT


def test_what_the_posture_says_already_is_not_said_again() -> None:
    found = modes(shop_cell(posture=STRICT))
    assert "stores" not in found.namespaces
    assert found.workloads == {}
