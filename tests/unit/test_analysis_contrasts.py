"""Which cells are compared with which, and that the arithmetic keeps pairs and executions apart."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.synthetic import cell, ladder_cells, synthetic_study

from meshwise.analysis.compare import between_increments, between_meshes
from meshwise.analysis.contrast import Naming, evaluate
from meshwise.analysis.grid import Grid
from meshwise.analysis.increment import against_none, below, ladder
from meshwise.analysis.interaction import interactions, only_describes
from meshwise.findings.metric import METRICS, MetricKey
from meshwise.findings.subject import scope_of
from meshwise.measure.trial import TrialResult
from meshwise.stats.arrays import execution_means
from meshwise.study.model import (
    Authorization,
    Cell,
    KeyType,
    MeshName,
    MtlsMode,
    Posture,
    Protocol,
    Role,
    Trial,
)

PLAINTEXT, PERMISSIVE, STRICT = (Posture(mode) for mode in MtlsMode)
FINE = Posture(MtlsMode.STRICT, Authorization.FINE)
NAMESPACE = Posture(MtlsMode.STRICT, Authorization.NAMESPACE)


def steps(cells: tuple[Cell, ...]) -> list[str]:
    return [
        f"{scope_of(contrast.subject)['from']}>{scope_of(contrast.subject)['to']}"
        for contrast in ladder(cells, Naming.of(cells))
    ]


def test_the_ladder_climbs_rung_by_rung_from_no_mesh() -> None:
    assert steps(ladder_cells(MeshName.ISTIO)) == [
        "none>plaintext", "plaintext>permissive", "permissive>strict", "strict>strict+namespace",
        "strict+namespace>strict+fine",
    ]  # fmt: skip


def test_a_missing_rung_is_stepped_over() -> None:
    cells = (cell(MeshName.NONE), cell(posture=PLAINTEXT), cell(posture=FINE))
    assert steps(cells) == ["none>plaintext", "plaintext>strict+fine"]


def test_only_cells_of_one_setting_are_compared() -> None:
    http1, http2 = ladder_cells(MeshName.ISTIO), ladder_cells(MeshName.ISTIO, protocol=Protocol.HTTP2)
    contrasts = list(ladder(http1 + http2, Naming.of(http1 + http2)))
    assert len(contrasts) == 10
    assert all(len({each.protocol for each, _ in contrast.terms}) == 1 for contrast in contrasts)


def test_keys_must_agree_only_where_both_sides_use_them() -> None:
    rsa, ecdsa = KeyType.RSA_2048, KeyType.ECDSA_P256
    cells = (
        cell(posture=PLAINTEXT, key_type=rsa),
        cell(posture=STRICT, key_type=rsa),
        cell(posture=STRICT, key_type=ecdsa),
        cell(posture=NAMESPACE, key_type=ecdsa),
    )
    assert below(cells[2], cells) == cells[0]
    assert below(cells[3], cells) == cells[2]


def test_policy_counts_must_agree_between_two_authorized_rungs() -> None:
    few, many = cell(posture=NAMESPACE, policy_count=0), cell(posture=FINE, policy_count=100)
    assert below(many, (few, many)) is None
    strict = cell(posture=STRICT)
    assert below(few, (strict, few)) == strict


def test_the_share_of_plaintext_clients_compares_with_none_of_them() -> None:
    shared, plain = cell(posture=PERMISSIVE, plaintext_share=0.2), cell(posture=PERMISSIVE)
    strict = cell(posture=STRICT)
    assert below(strict, (shared, plain, strict)) == plain


def test_against_none_leaves_out_what_the_ladder_has() -> None:
    cells = ladder_cells(MeshName.ISTIO)
    found = [scope_of(contrast.subject)["to"] for contrast in against_none(cells, Naming.of(cells))]
    assert found == ["permissive", "strict", "strict+namespace", "strict+fine"]


def test_meshes_are_compared_at_equal_posture_and_what_is_unequal_is_said() -> None:
    cells = ladder_cells(MeshName.ISTIO, MeshName.LINKERD)
    found = list(between_meshes(cells, Naming.of(cells)))
    assert [scope_of(contrast.subject)["posture"] for contrast in found] == [
        "plaintext", "permissive", "strict", "strict+namespace", "strict+fine",
    ]  # fmt: skip
    assert all(scope_of(contrast.subject)["mesh"] == "istio - linkerd" for contrast in found)
    assert found[0].flags == ()
    assert list(map(str, found[2].flags)) == ["unequal: key_type is rsa-2048 in istio, ecdsa-p256 in linkerd"]


def test_equal_keys_are_preferred_where_both_meshes_have_them() -> None:
    rsa, ecdsa = KeyType.RSA_2048, KeyType.ECDSA_P256
    cells = (
        cell(key_type=rsa), cell(key_type=ecdsa),
        cell(MeshName.LINKERD, key_type=rsa), cell(MeshName.LINKERD, key_type=ecdsa),
    )  # fmt: skip
    found = list(between_meshes(cells, Naming.of(cells)))
    assert [contrast.flags for contrast in found] == [(), ()]


def test_difference_of_increments_has_four_cells_that_cancel() -> None:
    cells = ladder_cells(MeshName.ISTIO, MeshName.LINKERD)
    found = list(between_increments(cells, Naming.of(cells)))
    assert len(found) == 4
    assert all(sum(coefficient for _, coefficient in contrast.terms) == 0 for contrast in found)
    assert found[0].noise_factor == pytest.approx(2**0.5)


def test_an_interaction_is_of_cells_with_one_share_of_plaintext_clients() -> None:
    alone = Posture(MtlsMode.DISABLE, Authorization.REQUEST)
    both = Posture(MtlsMode.PERMISSIVE, Authorization.REQUEST)
    cells = tuple(cell(posture=each) for each in (PLAINTEXT, alone, both))
    with_clients = cell(posture=PERMISSIVE, plaintext_share=0.2)
    assert list(interactions((*cells, with_clients), Naming.of(cells))) == []
    cells = (*cells, cell(posture=PERMISSIVE))
    assert len(list(interactions(cells, Naming.of(cells)))) == 1


def test_a_ladder_has_no_interaction_and_factorial_cells_have() -> None:
    cells = ladder_cells(MeshName.ISTIO)
    assert list(interactions(cells, Naming.of(cells))) == []
    factorial = tuple(
        cell(posture=Posture(mode, authorization))
        for mode in (MtlsMode.DISABLE, MtlsMode.STRICT)
        for authorization in (Authorization.NONE, Authorization.REQUEST)
    )
    (found,) = interactions(factorial, Naming.of(factorial))
    assert {each.posture.name: coefficient for each, coefficient in found.terms} == {
        "strict+request": 1, "strict": -1, "plaintext+request": -1, "plaintext": 1,
    }  # fmt: skip
    assert only_describes(found.subject, METRICS["response_p99_us"])
    assert not only_describes(found.subject, METRICS["response_p50_us"])


def test_difference_of_differences_is_exact_without_noise() -> None:
    cells = ladder_cells(MeshName.ISTIO, MeshName.LINKERD)
    truth = [100.0, 200, 210, 240, 250, 280, 150, 155, 165, 170, 180]
    results = synthetic_study(cells, seed=0, truth=truth, s_b=0.0, s_block=0.0)
    grid = Grid.of(results, cells)
    found = [
        evaluate(grid, c, MetricKey("response_p50_us")) for c in between_increments(cells, Naming.of(cells))
    ]
    assert [float(effect.absolute[0]) for effect in found if effect] == pytest.approx([5, 20, 5, 20])


def test_a_failed_trial_costs_its_own_pairs_only() -> None:
    cells = ladder_cells(MeshName.ISTIO)
    results = synthetic_study(cells, seed=0, K=6)
    strict = next(each for each in cells if each.posture == STRICT)
    kept = [r for r in results if not (r.trial.cell == strict and r.trial.block == 2)]
    grid = Grid.of(kept, cells)
    lost = {}
    for contrast in ladder(cells, Naming.of(cells)):
        effect = evaluate(grid, contrast, MetricKey("response_p50_us"))
        assert effect is not None
        lost[scope_of(contrast.subject)["to"]] = effect.lost_blocks
    assert lost == {"plaintext": 0, "permissive": 0, "strict": 1, "strict+namespace": 1, "strict+fine": 0}


def test_a_retry_takes_the_place_of_what_it_repeats() -> None:
    trial = Trial("b000-p00", 0, 0, 0, cell())
    again = Trial("b000-p00-r1", 0, 0, 0, cell(), attempt=1)
    first, second = (
        TrialResult(trial, {MetricKey("response_p50_us"): 1.0}),
        TrialResult(again, {MetricKey("response_p50_us"): 2.0}),
    )
    for order in ((first, second), (second, first)):
        assert Grid.of(order).values(MetricKey("response_p50_us"))[0, 0] == 2.0


def test_controls_are_not_cells() -> None:
    trial = Trial("b000-p01", 0, 0, 1, cell(), Role.AA)
    grid = Grid.of([TrialResult(trial, {MetricKey("response_p50_us"): 3.0})])
    assert np.isnan(grid.values(MetricKey("response_p50_us"))).all()
    assert grid.values(MetricKey("response_p50_us"), Role.AA)[0, 0] == 3.0


def test_a_percentile_is_estimable_in_a_cell_by_its_median_trial() -> None:
    def results(counts: list[float]) -> list[TrialResult]:
        return [
            TrialResult(
                Trial(f"b{b}", b, b, 0, cell()),
                {MetricKey("response_p99_us"): 5.0},
                {MetricKey("response_p99_us"): count},
            )
            for b, count in enumerate(counts)
        ]

    assert not np.isnan(Grid.of(results([30, 8, 12])).values(MetricKey("response_p99_us"))).any()
    assert np.isnan(Grid.of(results([30, 8, 9])).values(MetricKey("response_p99_us"))).all()


def test_blocks_are_averaged_within_their_execution() -> None:
    assert execution_means(np.array([1.0, 3.0, 10.0]), np.array([0, 0, 1])) == pytest.approx([2.0, 10.0])
    d = np.array([1.0, 3.0])
    assert execution_means(d, np.array([4, 7])) is d
