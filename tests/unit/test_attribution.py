"""Instructions by function: from a counter's words through the archive to groups, steps and the drawing."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.support.fake_study import run_fake

from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.findings.document import to_json
from meshwise.findings.metric import BY_GROUP
from meshwise.findings.pictures import Flame, FlameFunction, Pictures
from meshwise.measure.function_groups import ENVOY, LINKERD, Group, Patterns, group_of, subject
from meshwise.measure.functions import per_request
from meshwise.report.attributed import differential_lines
from meshwise.report.content import content
from meshwise.report.flame import flame_drawing, short
from meshwise.report.html.page import render
from meshwise.report.record import read_record
from meshwise.report.sections import report_of
from meshwise.study.counting import WindowKind
from meshwise.study.file.read import parse_study
from meshwise.study.model import MeshName
from meshwise.telemetry.counting.seam import Function
from meshwise.testbed.counting import MOST_FUNCTIONS, REST, CountedWindow, functions_table
from meshwise.testbed.fake_counting import functions_truth

FIXTURES = Path(__file__).parents[1] / "fixtures" / "functions"
STUDY = """\
name: groups
environments: [istio, linkerd]
factors: {posture: [plaintext, strict, strict+fine], connections: 1}
count: {requests: 50, executions: 6, handshakes: 0, windows: 3}
"""


def recorded(name: str) -> list[tuple[int, Function]]:
    """(instructions per request, function) of a linkerd2-proxy before the server, strict+fine with ten rules,
    counted under callgrind; those with 60 or more."""
    lines = (line.split("\t") for line in (FIXTURES / name).read_text().splitlines())
    return [(int(cost), Function(f"/lib/{binary}", function)) for cost, binary, function in lines]


def used(patterns: Patterns, names: list[str]) -> Counter[str]:
    fits = (
        next((pattern for pattern, _ in patterns if re.match(pattern, subject(name))), "") for name in names
    )
    return Counter(fits)


# --- groups ------------------------------------------------------------------------------------------


def test_every_pattern_of_linkerds_table_is_used_and_hardly_anything_is_rest() -> None:
    functions = recorded("linkerd.tsv")
    own = [each.name for _, each in functions if each.binary == "/lib/linkerd2-proxy"]
    found = used(LINKERD, own)
    assert [pattern for pattern, _ in LINKERD if not found[pattern]] == []
    costs: Counter[Group] = Counter()
    for cost, each in functions:
        costs[group_of(MeshName.LINKERD, each)] += cost
    share = costs[Group.REST] / costs.total()
    print(f"rest: {share:.3%} of {costs.total()} instructions")
    assert share < 0.005
    assert set(costs) >= set(Group) - {Group.REST}


def test_every_pattern_of_envoys_table_is_used_by_a_class_that_is_in_it() -> None:
    """Names from the type information of Envoy 1.40, which a stripped binary keeps."""
    names = (FIXTURES / "envoy.txt").read_text().splitlines()
    found = used(ENVOY, names)
    assert [pattern for pattern, _ in ENVOY if not found[pattern]] == []
    assert found[""] == 0


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("h2::hpack::table::Table::index", "h2::hpack::table::Table::index"),
        ("<h2::codec::Codec<T> as futures_core::stream::Stream>::poll_next", "h2::codec::Codec<T>"),
        ("<&rustls::Error as core::fmt::Display>::fmt", "rustls::Error"),
        ("<T as linkerd_stack::new_service::NewService<U>>::new_service", "linkerd_stack::new_service"),
        ("<<A as b::C>::D as e::F>::g", "b::C"),
        ("core::ptr::drop_in_place<[http::header::map::Bucket<V>]>", "[http::header"),
        ("core::ptr::drop_in_place<h2::server::Peer>", "h2::server"),
        ("<u8 as core::fmt::Display>::fmt", "core::fmt::Display"),
        ("non-virtual thunk to Envoy::Http::Http1::X::y()", "Envoy::Http::Http1::X::y()"),
    ],
)
def test_a_functions_subject_is_what_it_is_of(name: str, about: str) -> None:
    assert subject(name).startswith(about)


def test_groups_of_some_functions() -> None:
    def group(mesh: MeshName, name: str, binary: str = "/proxy") -> Group:
        return group_of(mesh, Function(binary, name))

    assert group(MeshName.LINKERD, "aws_lc_0_44_0_aes_hw_ctr32_encrypt_blocks") is Group.TLS
    assert group(MeshName.LINKERD, "<linkerd_io::sensor::SensorIo<T,S> as tokio::X>::poll") is Group.TELEMETRY
    assert group(MeshName.LINKERD, "linkerd_app_inbound::policy::http::f") is Group.POLICY
    assert group(MeshName.LINKERD, "linkerd_app_inbound::http::router::f") is Group.ROUTING
    assert group(MeshName.ISTIO, "SSL_read") is Group.TLS
    assert group(MeshName.ISTIO, "Envoy::Extensions::Filters::Common::RBAC::f()") is Group.POLICY
    assert group(MeshName.ISTIO, "malloc", "/usr/lib/x86_64-linux-gnu/libc.so.6") is Group.LIBC
    assert group(MeshName.ISTIO, "") is Group.REST


# --- what is stored ----------------------------------------------------------------------------------


def window(
    kind: WindowKind, number: int, functions: dict[Function, int], requests: int = 10
) -> CountedWindow:
    return CountedWindow(number, kind, requests, 1, 1_000, {}, {"linkerd/a/client/proxy": functions})


def test_windows_of_a_kind_are_summed_and_what_has_no_symbol_is_one_row_per_binary() -> None:
    one, other = Function("/p", "f"), Function("/p", "0x000000000556a830")
    windows = [
        window(WindowKind.WARMUP, 0, {one: 9}),
        window(WindowKind.REQUESTS, 1, {one: 5, other: 2, Function("/p", "0x1"): 1}),
        window(WindowKind.REQUESTS, 2, {one: 6, Function("/p", "???"): 4}),
        window(WindowKind.IDLE, 3, {one: 1}, 0),
    ]
    table = functions_table(windows)
    assert table is not None
    names = ("kind", "binary", "function", "value", "requests", "duration_ns")
    rows = [tuple(row[name] for name in names) for row in table.to_pylist()]
    assert rows == [
        ("requests", "/p", "f", 11, 20, 2_000),
        ("requests", "/p", "", 7, 20, 2_000),
        ("idle", "/p", "f", 1, 0, 1_000),
    ]
    assert functions_table([replace(each, functions={}) for each in windows]) is None


def test_what_is_stored_is_bounded_and_adds_up() -> None:
    functions = {Function("/p", f"f{number}"): number + 1 for number in range(MOST_FUNCTIONS + 40)}
    table = functions_table([window(WindowKind.REQUESTS, 0, functions)])
    assert table is not None
    assert table.num_rows == MOST_FUNCTIONS + 1
    assert sum(table["value"].to_pylist()) == sum(functions.values())
    assert table["function"].to_pylist()[-1] == REST
    assert table["value"].to_pylist()[-1] == sum(range(1, 41))


def test_idle_is_taken_off_by_its_length() -> None:
    one = Function("/p", "f")
    table = functions_table(
        [
            window(WindowKind.REQUESTS, 0, {one: 100}),
            replace(window(WindowKind.IDLE, 1, {one: 20}), duration_ns=500),
        ]
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    assert per_request(frame) == {"client": {one: (100 - 2 * 20) / 10}}


# --- from the archive to the report ------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ArchiveReader:
    directory = tmp_path_factory.mktemp("groups") / "a"
    run_fake(directory, replace(parse_study(STUDY, "groups.yaml"), timed=False))
    return ArchiveReader.open(directory)


def test_functions_add_up_to_what_was_counted(archive: ArchiveReader) -> None:
    keys = ["trial_id", "kind", "source"]
    functions, counts = (
        frame.with_columns(pl.col(*keys).cast(pl.String)) for frame in (archive.functions(), archive.counts())
    )
    instructions = counts.filter(pl.col("metric") == "instructions")
    wanted = instructions.group_by(keys).agg(pl.col("value").sum().alias("counted"))
    joined = functions.group_by(keys).agg(pl.col("value").sum()).join(wanted, on=keys, how="left")
    assert joined.height == 2 * 3 * 6 * 2 * 2  # meshes, rungs, lives, sidecars, kinds of windows
    assert (joined["value"] == joined["counted"]).all()


def test_steps_by_group_hold_the_truth_and_only_their_own_group_changes(archive: ArchiveReader) -> None:
    document = analyze_archive(archive)
    assert document.study["counting"]["attributed"] == {"istio": True, "linkerd": True}
    steps = {
        (str(each.levels["mesh"]), str(each.scope["to"]), each.part): each
        for each in document.findings
        if each.kind == "increment" and each.metric == BY_GROUP
    }
    cells = {(cell.mesh, cell.posture.name): cell for cell in archive.study().cells}
    for mesh in ("istio", "linkerd"):
        at = MeshName(mesh)
        tls = sum(tls for tls, _ in functions_truth(cells[at, "strict"]).values())
        policy = sum(policy for _, policy in functions_truth(cells[at, "strict+fine"]).values())
        found = steps[mesh, "strict", "TLS"], steps[mesh, "strict+fine", "policy"]
        for step, truth in zip(found, (tls, policy), strict=True):
            assert step.low is not None
            assert step.high is not None
            half = (step.high - step.low) / 2
            assert step.estimate == pytest.approx(truth, abs=2 * half + 0.002 * truth)
        other = steps[mesh, "strict+fine", "HTTP codec"]
        assert other.verdict == "not distinguishable"


def test_the_report_has_the_table_and_a_drawing_per_step(archive: ArchiveReader) -> None:
    document = to_json(analyze_archive(archive))
    record = read_record(archive)
    page = render(report_of(content(document), record), record)
    assert page.count('aria-label="istio, ') == page.count('aria-label="linkerd, ') == 2
    assert "instructions of sidecars per request, by group of functions: added by each step" in page
    assert "differential only" not in page
    assert "<script" not in page


def test_without_symbols_counts_are_differential_only_and_it_says_how_to_get_them(
    archive: ArchiveReader,
) -> None:
    document = to_json(analyze_archive(archive))
    document["study"]["counting"] |= {"counter": "callgrind", "attributed": {"istio": False, "linkerd": True}}
    (line,) = differential_lines(content(document))
    assert "istio: differential only" in str(line)
    assert "MESHWISE_ENVOY" in str(line)


# --- the drawing -------------------------------------------------------------------------------------

FLAME = Flame(
    {"mesh": "linkerd", "posture": "strict"}, "permissive", "strict", 4,
    (
        FlameFunction("TLS", "rustls::<T & U>::seal", 0.0, 300.0),
        FlameFunction("TLS", "gone", 100.0, 0.0),
        FlameFunction("libc", "memcpy", 600.0, 600.0),
    ),
)  # fmt: skip


def test_boxes_are_as_wide_as_they_cost_and_below_as_wide_as_they_change() -> None:
    drawn = flame_drawing("f", "linkerd", FLAME)
    boxes = re.findall(
        r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"[^>]*class="flame (\w+)"><title>(\S+)', drawn
    )
    rows = sorted({float(y) for _, y, *_ in boxes})
    cost = {name: (float(width), shade) for _, y, width, shade, name in boxes if float(y) == rows[1]}
    assert cost == {"rustls::&lt;T": (275.0, "up3"), "gone": (91.0, "down3"), "memcpy": (551.0, "same")}
    change = [name for _, y, _, _, name in boxes if float(y) == rows[3]]
    assert "memcpy" not in change
    assert "700 → 900 instructions per request (+200)" in drawn
    assert "<T & U>" not in drawn


def test_a_flame_is_read_back_as_it_was_written() -> None:
    pictures = Pictures(flames=(FLAME,))
    assert Pictures.read(pictures.as_json()) == pictures


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("h2::hpack::table::Table<T>::index", "Table::index"),
        ("<A as b::C>::f", "f"),
        ("memcpy", "memcpy"),
        ("Envoy::Http::X::y(std::a<b> const&)", "X::y"),
    ],
)
def test_short_names(name: str, shown: str) -> None:
    assert short(name) == shown
