"""docs/fidelity.md lists what the reports list, in the same words."""

from __future__ import annotations

import runpy
from pathlib import Path

from meshwise.mesh.istio import fidelity
from meshwise.mesh.istio.native import NAMES, Native
from meshwise.mesh.istio.view import Options
from meshwise.mesh.linkerd import fidelity as linkerd
from meshwise.mesh.linkerd.destinations import Transport

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "fidelity.md"


def test_the_table_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "fidelity_table.py"))
    assert script["current"](PAGE.read_text()) == PAGE.read_text(), "run scripts/fidelity_table.py"


def test_every_difference_that_can_apply_is_in_it() -> None:
    """Whatever the options, a report shows no code that the page does not explain."""
    own = Native(**{kind: names[0] for kind, names in NAMES.items()})
    every = {
        each.code
        for options in (
            Options(),
            Options(native=own),
            Options(telemetry=False),
            Options(curves=()),
            Options(traced=True),
        )
        for privileged in (True, False)
        for istiod in (True, False)
        for each in fidelity.differences(options, privileged=privileged, istiod=istiod)
    }
    assert every == {each.code for each in fidelity.ALL}
    assert {code for code in every if f"`{code}`" not in PAGE.read_text()} == set()


def test_so_is_every_difference_of_linkerd() -> None:
    every = {
        each.code
        for transport in (Transport(), Transport(http2_upgrade=False, transport_header=False))
        for untried in (None, "v9")
        for privileged in (True, False)
        for each in linkerd.differences(transport, untried, privileged=privileged)
    }
    assert every == {each.code for each in linkerd.ALL}
    assert {code for code in every if f"`{code}`" not in PAGE.read_text()} == set()


def test_it_says_what_was_not_tried() -> None:
    assert "not been run with Istio's binary" in PAGE.read_text()
