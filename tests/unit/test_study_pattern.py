"""Connections, sizes and streams as factors of a study: cells, names, what is refused, and the archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.studies import cell, study, trial

from meshwise.archive.rows import cell_of, cell_row
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.request import path_of, request_of
from meshwise.study.file.read import parse_study
from meshwise.study.model import LADDER, Cell, Protocol, Streaming, Study
from meshwise.testbed.layout import lay_out
from meshwise.testbed.local.instrument import load_spec, outside_spec

HOME = Path("/home")
STRICT = LADDER[2]


def cells(factors: str, more: str = "") -> Sequence[Cell]:
    return read(factors, more).cells


def read(factors: str, more: str = "") -> Study:
    text = f"name: s\nenvironments: istio\nfactors:\n  posture: strict\n{factors}{more}"
    return parse_study(text, "s.yaml")


def test_nothing_said_is_kept_connections_one_size_and_unary_calls() -> None:
    [one] = cells("")
    assert (one.requests_per_connection, one.churn_per_s) == (0, 0)
    assert (one.streaming, one.messages) == (Streaming.NONE, 1)
    assert (one.request_sizes, one.response_sizes) == ("", "")


def test_levels_make_cells_with_names_of_their_own() -> None:
    found = cells("  requests_per_connection: [0, 1, 10]\n")
    assert [each.requests_per_connection for each in found] == [0, 1, 10]
    assert "/1each" in found[1].name
    churned = cells("  churn: [0/s, 90/m]\n")
    assert [each.churn_per_s for each in churned] == [0, 1.5]
    assert "/1.5churned" in churned[1].name


def test_a_distribution_is_a_level_and_its_mean_the_size() -> None:
    found = cells('  request: [1KiB, "uniform(0B, 2KiB)"]\n  response: lognormal(1KiB, 0.5)\n')
    assert [(each.request_bytes, each.request_sizes) for each in found] == [
        (1024, ""), (1024, "uniform(0B, 2KiB)"),
    ]  # fmt: skip
    assert {each.response_sizes for each in found} == {"lognormal(1KiB, 0.5)"}
    assert found[0].response_bytes == round(1024 * 2.718281828 ** (0.5**2 / 2))
    assert len({each.name for each in found}) == 2


def test_a_distribution_can_be_excluded_and_controlled() -> None:
    more = 'exclude: [{request: "uniform(0B;2KiB)"}]\ncontrol: {same: [{request: 1KiB}], twin: none}\n'
    found = read('  request: [1KiB, "uniform(0B, 2KiB)"]\n', more)
    assert [each.request_sizes for each in found.cells] == [""]
    assert found.control.same == tuple(found.cells)


def test_streams_are_grpc_s_and_do_not_multiply_others() -> None:
    found = cells("  protocol: [http1, grpc]\n  streaming: [none, bidi]\n  messages: [5, 50]\n")
    assert [(each.protocol, each.streaming, each.messages) for each in found] == [
        (Protocol.HTTP1, Streaming.NONE, 1), (Protocol.GRPC, Streaming.NONE, 1),
        (Protocol.GRPC, Streaming.BIDI, 5), (Protocol.GRPC, Streaming.BIDI, 50),
    ]  # fmt: skip
    assert "/bidi-50" in found[-1].name
    [default] = cells("  protocol: grpc\n  streaming: server\n")
    assert default.messages == 10


@pytest.mark.parametrize(
    ("factors", "more", "code", "words"),
    [
        ("  request: wide(1KiB)\n", "", "MW105", "not a size or a distribution"),
        ("  request: uniform(1KiB, 11MiB)\n", "", "MW105", "goes beyond 10MiB"),
        ("  request: 17MiB\n", "", "MW105", "too much"),
        ("  request: [uniform(1KiB, 2KiB)]\n", "", "MW105", "not a size or a distribution"),
        ("  churn: often\n", "", "MW105", "not a rate"),
        ("  churn: 20000/s\n", "", "MW105", "too much"),
        ("  requests_per_connection: -1\n", "", "MW105", "does not fit"),
        ("  streaming: duplex\n", "", "MW104", "not a kind of streaming"),
        ("  streaming: bidi\n", "", "MW107", "only grpc"),
        ("  messages: 5\n", "", "MW107", "those of a gRPC stream"),
        ("  protocol: grpc\n  streaming: bidi\n  length: 2\n", "", "MW107", "one node"),
        ("  protocol: grpc\n  streaming: bidi\n", "topology: fanout\n", "MW107", "one node"),
        (
            "  protocol: grpc\n  streaming: client\n  messages: 99999\n  request: 1KiB\n",
            "",
            "MW107",
            "16MiB",
        ),
        ("  churn: 1/s\n  requests_per_connection: 1\n", "", "MW107", "not both"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(factors: str, more: str, code: str, words: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        read(factors, more)
    assert code in str(caught.value) or caught.value.code == code
    assert words in caught.value.what
    assert "s.yaml:" in f"{caught.value.where}{caught.value.what}"


PATTERNED = cell(
    STRICT, Protocol.GRPC, requests_per_connection=7, streaming=Streaming.SERVER, messages=9,
    request_sizes="uniform(0B, 128B)", response_sizes="lognormal(512B, 1)",
)  # fmt: skip


def test_a_cell_comes_back_from_the_archive_and_an_old_one_is_read() -> None:
    row = cell_row(PATTERNED)
    assert cell_of(row) == PATTERNED
    added = {"requests_per_connection", "churn_per_s", "streaming", "messages"}
    added |= {"request_sizes", "response_sizes"}
    old = {name: value for name, value in cell_row(cell(STRICT)).items() if name not in added}
    assert cell_of(old) == cell(STRICT)


def test_the_instrument_is_told_all_of_it() -> None:
    [environment] = lay_out(study([PATTERNED]), HOME)
    spec = load_spec(study([PATTERNED]), trial(0, PATTERNED), environment, request_of(PATTERNED), None)
    assert spec.path == path_of(PATTERNED) == "/meshwise.Echo/ServerStream"
    assert (spec.requests_per_connection, spec.streaming, spec.messages) == (7, Streaming.SERVER, 9)
    assert (spec.request_sizes, spec.response_sizes) == (PATTERNED.request_sizes, PATTERNED.response_sizes)
    assert dict(spec.headers)["x-plan"] == "bytes={response_bytes};hops=0;fan=0;work_us=0;messages=9"


def test_churn_is_shared_between_the_two_clients_of_a_cell() -> None:
    one = replace(cell(LADDER[1], plaintext_share=0.25), churn_per_s=8.0)
    [environment] = lay_out(study([one]), HOME)
    inside = load_spec(study([one]), trial(0, one), environment, request_of(one), None)
    assert (inside.churn_per_s, outside_spec(inside, trial(0, one), environment).churn_per_s) == (6.0, 2.0)
