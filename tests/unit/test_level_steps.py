"""Each level of a validation mechanism is compared with the default, or the study's first."""

from __future__ import annotations

from pathlib import Path

from meshwise.analysis.contrast import Naming
from meshwise.analysis.level_steps import level_steps
from meshwise.cli.wiring import not_applicable
from meshwise.findings.subject import LevelStep
from meshwise.study.file.read import load_study

HANDSHAKES = Path(__file__).parents[2] / "studies/handshakes.yaml"
ISTIO = {
    "chain_depth": {"2 intermediates instead of 1 intermediate", "3 intermediates instead of 1 intermediate"},
    "crl_entries": {"list of 1 revoked", "list of 1000 revoked", "list of 10000 revoked"},
    "key_type": {f"{key} key instead of ecdsa-p256 key" for key in ("rsa-2048", "rsa-3072", "ecdsa-p384")},
    "resumption": {"sessions resumed instead of no session resumed"},
    "san_match": {"names prefix instead of names exact"},
    "tls_group": {"TLS group x25519mlkem768 instead of TLS group default"},
    "tls_version": {"TLS 1.2 instead of TLS default"},
}


def test_what_each_way_of_validating_adds_is_a_comparison_of_its_own() -> None:
    cells = load_study(HANDSHAKES, not_applicable).cells
    found: dict[str, dict[str, set[str]]] = {"istio": {}, "linkerd": {}}
    for contrast in level_steps(cells, Naming.of(cells)):
        step = contrast.subject
        assert isinstance(step, LevelStep)
        found[str(step.at["mesh"])].setdefault(step.factor, set()).add(step.words)
        (upper, plus), (lower, minus) = contrast.terms
        assert (plus, minus) == (1, -1)
        assert upper.posture == lower.posture
    assert found["istio"] == ISTIO
    assert found["linkerd"] == {"chain_depth": ISTIO["chain_depth"]}
