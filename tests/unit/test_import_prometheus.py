"""`meshwise import prometheus`: planted numbers come back, with resets, gaps and stale series; what is
garbage is said, and nothing is left half-written."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.answering import server, url_of
from tests.support.prometheus import Prometheus, needs_prometheus, prometheus
from typer.testing import CliRunner

from meshwise.archive.imported import ImportReader, importing
from meshwise.archive.query import answering, sources_of_import
from meshwise.cli import main
from meshwise.cli.import_ import point_of, wanted_of
from meshwise.core.errors import MeshwiseError
from meshwise.series.bring import bring
from meshwise.series.http import Retries, endpoint
from meshwise.series.levels import quantile
from meshwise.series.meshes import MESH_METRICS, Pods, belonging, failed, over_mtls
from meshwise.series.prometheus import MOST_ANSWER_BYTES, PrometheusApi
from meshwise.series.remote_write import HEADERS, STALE, compressed, write_request_class
from meshwise.series.sending import sent

T0 = 1_790_000_040
"""A multiple of the step."""
STEP, SPAN = 30, 1200
Points = Mapping[int, float]


def write(to: Prometheus, series: list[tuple[Mapping[str, str], Points]]) -> None:
    """Plant series, points in the order of time."""
    bodies = []
    times = sorted({t for _, points in series for t in points})
    for begin in range(0, len(times), 20):
        request = write_request_class()()
        for labels, points in series:
            mine = [t for t in times[begin : begin + 20] if t in points]
            if mine:
                entry = request.timeseries.add()
                for name, text in sorted(labels.items()):
                    entry.labels.add(name=name, value=text)
                for t in mine:
                    entry.samples.add(value=points[t], timestamp=(T0 + t) * 1000)
        bodies.append((compressed(request.SerializeToString()), 1))
    sent(bodies, endpoint(f"{to.url}/api/v1/write"), HEADERS, retries=Retries())


def counting(per_scrape: float, *, begin: int = 0, end: int = SPAN, reset_at: int = -1) -> dict[int, float]:
    """A counter scraped every 15 s; at `reset_at` it begins again."""
    points, value = {}, 100.0
    for t in range(begin, end + 1, 15):
        points[t] = value
        value = per_scrape if t == reset_at else value + per_scrape
    return points


def increase(points: Points) -> float:
    """Of what a step of 30 s sees, as Prometheus counts it."""
    seen = [points[t] for t in sorted(points) if t % STEP == 0 and not math.isnan(points[t])]
    return sum(b - a if b >= a else b for a, b in pairwise(seen))


BETWEEN = {
    "source_workload": "web", "source_workload_namespace": "shop", "destination_workload": "checkout",
    "destination_workload_namespace": "shop", "namespace": "shop",
}  # fmt: skip
SERVER = {
    **BETWEEN,
    "reporter": "destination",
    "pod": "checkout-7d9f8b6c5d-abcde",
    "connection_security_policy": "mutual_tls",
}
CLIENT = {
    **BETWEEN,
    "reporter": "source",
    "pod": "web-5f6d7c8b9f-xyz12",
    "connection_security_policy": "unknown",
}
GOOD = counting(10, reset_at=600)
BAD = {t: v for t, v in counting(1).items() if not 300 < t < 480}
PLAIN = counting(2)
GONE = {**counting(3, end=720), 735: STALE}
NEW = counting(5, begin=300)
SEEN = counting(10)
BUCKETS = {"5": 5.0, "10": 9.0, "25": 10.0, "+Inf": 10.0}
SIDECAR, SERVICE, MEMORY = (
    counting(0.05),
    counting(0.2),
    {t: 50.0 * 2**20 + t for t in range(0, SPAN + 1, 15)},
)
INBOUND, OUTBOUND, FAILED = counting(8), counting(8), counting(2)
LINKERD = {
    "namespace": "books",
    "deployment": "authors",
    "pod": "authors-6c4f8d7b5d-q2w3e",
    "direction": "inbound",
    "tls": "true",
}


ASKING = {"direction": "outbound", "dst_namespace": "books", "dst_deployment": "books"}


def container(pod: str, name: str, namespace: str = "shop") -> dict[str, str]:
    return {"namespace": namespace, "pod": pod, "container": name}


def planted() -> list[tuple[Mapping[str, str], Points]]:
    total = {"__name__": "istio_requests_total"}
    cpu = {"__name__": "container_cpu_usage_seconds_total"}
    memory = {"__name__": "container_memory_working_set_bytes"}
    bucket = {"__name__": "istio_request_duration_milliseconds_bucket"}
    latency = {"__name__": "response_latency_ms_bucket"}
    return [
        ({**total, **SERVER, "response_code": "200"}, GOOD),
        ({**total, **SERVER, "response_code": "503"}, BAD),
        ({**total, **SERVER, "response_code": "200", "connection_security_policy": "none"}, PLAIN),
        ({**total, **SERVER, "response_code": "200", "pod": "checkout-7d9f8b6c5d-gone1"}, GONE),
        ({**total, **SERVER, "response_code": "200", "pod": "checkout-7d9f8b6c5d-new01"}, NEW),
        ({**total, **CLIENT, "response_code": "200"}, SEEN),
        *(({**bucket, **SERVER, "le": le}, counting(by)) for le, by in BUCKETS.items()),
        ({**cpu, **container("checkout-7d9f8b6c5d-abcde", "istio-proxy")}, SIDECAR),
        ({**cpu, **container("checkout-7d9f8b6c5d-abcde", "app")}, SERVICE),
        ({**cpu, **container("checkout-7d9f8b6c5d-abcde", "POD")}, SERVICE),
        ({**cpu, **container("other-7d9f8b6c5d-abcde", "app", "elsewhere")}, SERVICE),
        ({**memory, **container("checkout-7d9f8b6c5d-abcde", "istio-proxy")}, MEMORY),
        ({"__name__": "request_total", **LINKERD}, INBOUND),
        ({"__name__": "request_total", **LINKERD, **ASKING}, OUTBOUND),
        ({"__name__": "response_total", **LINKERD, "classification": "success"}, INBOUND),
        ({"__name__": "response_total", **LINKERD, "classification": "failure"}, FAILED),
        *(({**latency, **LINKERD, "le": le}, counting(by)) for le, by in BUCKETS.items()),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with prometheus(tmp_path_factory.mktemp("prometheus") / "p") as found:
        write(found, planted())
        yield found


def command(*words: str) -> Any:
    return CliRunner().invoke(main.app, list(words))


def imported(url: str, out: Path, *more: str) -> Any:
    times = ["--from", str(T0), "--to", str(T0 + SPAN), "--step", f"{STEP}s"]
    return command("import", "prometheus", url, "--out", str(out), *times, *more)


@pytest.fixture(scope="module")
def brought(real: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imports") / "production"
    told = imported(real.url, out)
    assert told.exit_code == 0, told.exception
    return out


def asked(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    with answering(sources_of_import(ImportReader.open(directory)), sql) as answer:
        return [row for batch in answer.rows for row in batch]


def refusal(act: Callable[[], object]) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        act()
    return caught.value


@needs_prometheus
def test_every_point_comes_back(brought: Path) -> None:
    rows = asked(
        brought,
        "SELECT t_unix_ns, value FROM imported_samples JOIN imported_series USING (series) "
        "WHERE metric = 'istio_requests_total' AND side = 'client' ORDER BY t_unix_ns",
    )
    assert rows == [((T0 + t) * 10**9, SEEN[t]) for t in range(0, SPAN + 1, STEP)]


@needs_prometheus
def test_increases_resets_gaps_and_ends_are_those_that_were_planted(brought: Path) -> None:
    rows = asked(
        brought,
        "SELECT labels->>'response_code', pod, labels->>'connection_security_policy', increase, resets, gaps "
        "FROM imported_series WHERE metric = 'istio_requests_total' AND side = 'server' ORDER BY ALL",
    )
    found = {row[:3]: row[3:] for row in rows}
    abcde = "checkout-7d9f8b6c5d-abcde"
    assert found["200", abcde, "mutual_tls"] == (pytest.approx(increase(GOOD)), 1, 0)
    assert found["503", abcde, "mutual_tls"] == (pytest.approx(increase(BAD)), 0, 1)
    assert found["200", abcde, "none"] == (pytest.approx(increase(PLAIN)), 0, 0)
    assert found["200", "checkout-7d9f8b6c5d-gone1", "mutual_tls"][0] == pytest.approx(increase(GONE))
    troubles = asked(
        brought,
        "SELECT t.kind, begin_unix_ns // 1000000000, end_unix_ns // 1000000000, pod, "
        "labels->>'response_code' "
        "FROM imported_troubles t JOIN imported_series USING (series) "
        "WHERE metric = 'istio_requests_total' ORDER BY ALL",
    )
    assert troubles == [
        ("ended", T0 + 720, T0 + SPAN, "checkout-7d9f8b6c5d-gone1", "200"),
        ("gap", T0 + 300, T0 + 480, abcde, "503"),
        ("late", T0, T0 + 300, "checkout-7d9f8b6c5d-new01", "200"),
        ("reset", T0 + 600, T0 + 630, abcde, "200"),
    ]


@needs_prometheus
def test_levels_are_what_was_planted(brought: Path) -> None:
    rows = asked(
        brought,
        "SELECT mesh, workload, metric, estimate, low, high, provenance, list_sort(flags) FROM findings",
    )
    level = {row[:3]: row[3:] for row in rows}
    parts = [increase(each) for each in (GOOD, BAD, PLAIN, GONE, NEW)]
    total = sum(parts)
    shop = ("istio", "shop/checkout")

    def value(metric: str, whose: tuple[str, str] = shop) -> float:
        return float(level[(*whose, metric)][0])

    assert value("throughput_rps") == pytest.approx(total / SPAN)
    assert value("error_ratio") == pytest.approx(parts[1] / total)
    assert value("mtls_ratio") == pytest.approx(1 - parts[2] / total)
    assert level[(*shop, "reported_p50_us")][:3] == (pytest.approx(5000), 0, 5000)
    assert level[(*shop, "reported_p90_us")][:3] == (pytest.approx(10_000), 5000, 10_000)
    assert level[(*shop, "reported_p99_us")][:3] == (pytest.approx(23_500), 10_000, 25_000)
    assert value("proxy_cpu_us_per_request") == pytest.approx(increase(SIDECAR) / total * 1e6)
    assert value("service_cpu_us_per_request") == pytest.approx(increase(SERVICE) / total * 1e6)
    grid = [MEMORY[t] for t in range(0, SPAN + 1, STEP)]
    assert value("sidecar_working_set_bytes") == pytest.approx(sum(grid) / len(grid))
    books = ("linkerd", "books/authors")
    assert value("error_ratio", books) == pytest.approx(2 / 10)
    assert value("mtls_ratio", books) == 1.0
    assert level[(*books, "reported_p99_us")][:3] == (pytest.approx(23_500), 10_000, 25_000)
    assert {row[3] for row in level.values()} == {"imported"}
    assert [flag.split(":")[0] for flag in level[(*shop, "throughput_rps")][4]] == [
        "began_late", "counter_resets", "ended_early", "gaps",
    ]  # fmt: skip


@needs_prometheus
def test_prometheus_itself_counts_the_same(real: Prometheus, brought: Path) -> None:
    """Its own `resets`, and the last value by `last_over_time`."""
    rows = asked(
        brought,
        "SELECT labels->>'response_code', pod, labels->>'connection_security_policy', "
        "resets, last_value, last_s "
        "FROM imported_series JOIN (SELECT series, arg_max(value, t_unix_ns) AS last_value, "
        "max(t_unix_ns) / 1e9 AS last_s FROM imported_samples GROUP BY series) USING (series) "
        "WHERE metric = 'istio_requests_total' AND side = 'server'",
    )
    assert len(rows) == 5
    for code, pod, policy, resets, last, last_s in rows:
        own = f'response_code="{code}",pod="{pod}",connection_security_policy="{policy}"'
        mine = f'istio_requests_total{{reporter="destination",{own}}}'
        assert real.number(f"resets({mine}[{SPAN + 15}s])", T0 + SPAN) == resets
        assert real.number(f"last_over_time({mine}[30s])", last_s) == last


@needs_prometheus
def test_only_containers_of_the_meshs_namespaces_come(brought: Path) -> None:
    rows = asked(
        brought, "SELECT DISTINCT namespace, container FROM imported_series WHERE container IS NOT NULL"
    )
    assert sorted(rows) == [("shop", "app"), ("shop", "istio-proxy")]


@needs_prometheus
def test_a_namespace_alone(real: Prometheus, tmp_path: Path) -> None:
    told = imported(real.url, tmp_path / "books", "--namespace", "books", "--json")
    assert told.exit_code == 0, told.exception
    about = json.loads(told.stdout)
    assert about["namespaces"] == ["books"]
    assert asked(tmp_path / "books", "SELECT DISTINCT mesh FROM imported_series") == [("linkerd",)]


@needs_prometheus
def test_report_and_query_read_it_and_say_what_it_cannot_tell(brought: Path) -> None:
    told = command("report", str(brought))
    assert told.exit_code == 0, told.exception
    words = " ".join(told.stdout.split())
    for said in (
        "shop/checkout",
        "books/authors",
        "cannot tell",
        "nobody changed only the posture",
        "counters fell",
    ):
        assert said in words
    page = (brought / "report.html").read_text()
    assert "shop/checkout" in page
    assert "cannot tell" in page
    document = json.loads(command("report", str(brought), "--json").stdout)
    assert document["imported"]["cannot_tell"]
    assert {each["provenance"] for each in document["levels"]} == {"imported"}
    tables = json.loads(command("query", str(brought), "--tables", "--json").stdout)
    assert {view["name"] for view in tables} == {
        "imported_series", "imported_samples", "imported_troubles", "findings",
    }  # fmt: skip
    for words_of in (["analyze"], ["export", "--format", "csv"]):
        error = command(words_of[0], str(brought), *words_of[1:]).exception
        assert isinstance(error, MeshwiseError)
        assert "it is an import" in error.what


@needs_prometheus
def test_time_comes_in_pieces_and_sizes_are_bounded(
    real: Prometheus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brought: Path
) -> None:
    monkeypatch.setattr("meshwise.series.prometheus.MOST_STEPS", 7)
    assert imported(real.url, tmp_path / "pieces").exit_code == 0
    joined = "imported_samples JOIN imported_series USING (series)"
    everything = f"SELECT labels, t_unix_ns, value FROM {joined} ORDER BY ALL"
    assert asked(tmp_path / "pieces", everything) == asked(brought, everything)
    counts = "SELECT metric, labels, increase, resets, gaps FROM imported_series ORDER BY ALL"
    assert asked(tmp_path / "pieces", counts) == asked(brought, counts)
    monkeypatch.setattr("meshwise.series.prometheus.MOST_STEPS", 2000)
    monkeypatch.setattr("meshwise.series.prometheus.MOST_ANSWER_BYTES", 2500)
    assert imported(real.url, tmp_path / "halves").exit_code == 0
    assert asked(tmp_path / "halves", everything) == asked(brought, everything)
    monkeypatch.setattr("meshwise.series.prometheus.MOST_ANSWER_BYTES", 400)
    for out, more in (("tiny", []), ("few", ["--most-samples", "50"])):
        if more:
            monkeypatch.setattr("meshwise.series.prometheus.MOST_ANSWER_BYTES", 1 << 20)
        error = imported(real.url, tmp_path / out, *more).exception
        assert isinstance(error, MeshwiseError)
        assert error.code == "MW025"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["halves", "pieces"]


@needs_prometheus
def test_another_time_has_nothing(real: Prometheus, tmp_path: Path) -> None:
    words = [
        "import",
        "prometheus",
        real.url,
        "--out",
        str(tmp_path / "x"),
        "--from",
        "2020-01-01",
        "--to",
        "2020-01-02",
    ]
    error = command(*words).exception
    assert isinstance(error, MeshwiseError)
    assert error.code == "MW026"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with server(200, body=b'{"status":"success","data":{"resultType":"scalar","result":[0,"1"]}}') as http:
        error = imported(url_of(http), tmp_path).exception
    assert isinstance(error, MeshwiseError)
    assert error.code == "MW603"
    assert (tmp_path / "x").read_text() == "mine"


@needs_prometheus
def test_an_import_that_was_altered_is_not_read(tmp_path: Path, brought: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(brought, copy)
    samples = copy / "imported_samples.parquet"
    whole = samples.read_bytes()
    samples.write_bytes(whole[:-1] + b"x")
    assert refusal(lambda: ImportReader.open(copy)).code == "MW027"
    samples.write_bytes(whole)
    findings = (copy / "findings.json").read_text()
    (copy / "findings.json").write_text(findings.replace('"imported"', '"measured"'))
    assert refusal(lambda: ImportReader.open(copy)).code == "MW027"
    (copy / "findings.json").write_text(findings)
    ImportReader.open(copy)
    about = copy / "imported.json"
    about.write_text(about.read_text().replace('"step_ns": 30000000000', '"step_ns": 40000000000'))
    assert refusal(lambda: ImportReader.open(copy)).code == "MW027"


# --- servers that are none -------------------------------------------------------------------------

SCALAR = b'{"status":"success","data":{"resultType":"scalar","result":[0,"1"]}}'


def matrix(*series: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b"<html>hello</html>", "MW024"),
        (200, b"", "MW024"),
        (200, b"{}", "MW024"),
        (200, b'{"status":"success"}', "MW024"),
        (200, b'{"status":"success","data":[]}', "MW024"),
        (200, b"[" * 100_000, "MW024"),
        (200, b'\xff\xfe{"status":"success"}', "MW024"),
        (404, b"not here", "MW023"),
        (401, b"", "MW023"),
        (302, b"", "MW023"),
        (500, b"broken", "MW023"),
        (200, b'{"status":"error","error":"bad_data"}', "MW023"),
    ],
)
def test_garbage_is_said(status: int, body: bytes, code: str) -> None:
    with server(status, body=body) as http:
        api = PrometheusApi(endpoint(url_of(http)))
        api.retries = Retries(sleep=lambda seconds: None)
        error = refusal(api.check)
        assert error.code == code, error
    assert len(str(error)) < 1000


def test_an_answer_without_end_is_garbage() -> None:
    with server(200, body=b" " * (MOST_ANSWER_BYTES + 1)) as http:
        error = refusal(PrometheusApi(endpoint(url_of(http))).check)
    assert error.code == "MW024"


@pytest.mark.parametrize(
    "series",
    [
        5,
        {"metric": {}, "values": [[1, "x"]]},
        {"metric": {"a": 1}, "values": []},
        {"metric": {"a": "\ud800"}, "values": [[1, "1"]]},
        {"metric": {}, "values": [[2, "1"], [1, "1"]]},
        {"metric": {}, "values": [[1, 1]]},
        {"metric": {}, "values": [["now", "1"]]},
        {"metric": {}, "values": [[1e300, "1"]]},
        {"metric": {}, "values": [[1, "1", 2]]},
        {"metric": {}},
        {"metric": [], "values": []},
    ],
)
def test_a_series_that_is_none(series: object) -> None:
    with server(200, body=matrix(series)) as http:
        api = PrometheusApi(endpoint(url_of(http)))
        error = refusal(lambda: list(api.range("x", 0, 10**9, 10**9)))
    assert error.code == "MW024"


def test_marks_of_staleness_and_infinities_are_no_points(tmp_path: Path) -> None:
    values = [
        [T0 + t, text]
        for t, text in ((0, "1"), (30, "NaN"), (60, "+Inf"), (90, "5"), (120, "-3"), (150, "6"))
    ]
    labels = {"__name__": "istio_requests_total", **SERVER, "response_code": "200"}
    with server(200, body=SCALAR) as probe:
        assert PrometheusApi(endpoint(url_of(probe))).check() == ""
    with server(200, body=matrix({"metric": labels, "values": values})) as http:
        api = PrometheusApi(endpoint(url_of(http)))
        with importing(tmp_path / "x") as writer:
            bring(api, wanted_of(str(T0), str(T0 + 150), "30s", (), 1000), writer)
            (writer.place / "findings.json").write_text('{"findings": []}')
            writer.keep({"source": "x", "from_unix_ns": 0, "to_unix_ns": 1, "step_ns": 1})
    rows = asked(
        tmp_path / "x",
        "SELECT samples, increase, gaps, resets FROM imported_series WHERE metric = 'istio_requests_total'",
    )
    assert rows == [(3, 5.0, 2, 0)]


def test_nobody_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(Retries.__init__, "__defaults__", (5, 0.5, 30.0, waits.append))
    with server(200) as http:
        gone = url_of(http)
    error = imported(gone, tmp_path / "x").exception
    assert isinstance(error, MeshwiseError)
    assert error.code == "MW022"
    assert len(waits) == 1, "a wrong address is told soon"
    assert list(tmp_path.iterdir()) == []


def test_a_token_goes_there_and_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    token = tmp_path / "token"
    token.write_text("Bearer s3cret")
    token.chmod(0o600)
    with server(403, body=b"no") as http:
        told = imported(url_of(http), tmp_path / "x", "--auth", str(token))
    assert http.seen[0][2]["Authorization"] == "Bearer s3cret"
    assert "--auth" in str(told.exception)
    assert "s3cret" not in f"{told.output}{told.exception!r}{caplog.text}"


# --- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "t_s"),
    [
        ("now", 1_000_000), ("1h", 996_400), ("1790000040", 1_790_000_040),
        ("2026-09-21T12:54:00Z", 1_789_995_240), ("2026-09-21T12:54+02:00", 1_789_988_040),
        ("2026-09-21", 1_789_948_800),
    ],
)  # fmt: skip
def test_times_as_people_write_them(text: str, t_s: int) -> None:
    assert point_of(text, 1_000_000 * 10**9, "--from") == t_s * 10**9


@pytest.mark.parametrize(
    ("from_", "to", "step", "namespaces"),
    [
        ("yesterday", "now", "1m", ()), ("1h", "2h", "1m", ()), ("1h", "now", "10ms", ()),
        ("20000h", "now", "1m", ()), ("1h", "now", "1m", ('x"} or vector(1)',)),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(from_: str, to: str, step: str, namespaces: tuple[str, ...]) -> None:
    assert refusal(lambda: wanted_of(from_, to, step, namespaces, 10)).code == "MW010"


def test_quantiles_lie_between_their_bounds() -> None:
    counts = [(0.005, 5.0), (0.01, 9.0), (math.inf, 10.0)]
    assert quantile(counts, 0.25) == (pytest.approx(0.0025), 0.0, 0.005)
    assert quantile(counts, 0.99) == (None, 0.01, None)
    assert quantile([(0.005, 5.0)], 0.5) is None
    assert quantile([(math.inf, 0.0)], 0.5) is None
    assert quantile([(1.0, 5.0), (2.0, 4.0), (math.inf, 6.0)], 0.9) == (None, 2.0, None)


def test_whose_a_series_is() -> None:
    istio, pods = MESH_METRICS[0], Pods()
    found = belonging(istio, SERVER, pods)
    assert (found.namespace, found.workload, found.side, found.proxy_of) == (
        "shop",
        "checkout",
        "server",
        "shop/checkout",
    )
    found = belonging(istio, CLIENT, pods)
    assert (found.workload, found.side, found.proxy_of) == ("checkout", "client", "shop/web")
    assert pods.workload("shop", "web-5f6d7c8b9f-xyz12") == "web"
    named = ("a-b-7d9f8b6c5d-abcde", "db-0", "agent-x2x4z", "plain")
    assert [Pods().workload("n", pod) for pod in named] == [
        "a-b", "db", "agent", "plain",
    ]  # fmt: skip
    assert belonging(istio, {}, Pods()).workload == "unknown"


def test_what_failed_and_what_was_secure() -> None:
    assert failed("istio_requests_total", {"response_code": "503"})
    assert failed("istio_requests_total", {"response_code": "0"})
    assert failed("istio_requests_total", {"response_code": "200", "grpc_response_status": "14"})
    assert not failed("istio_requests_total", {"response_code": "404", "grpc_response_status": ""})
    assert over_mtls("istio", {"connection_security_policy": "unknown"}) is None
    assert over_mtls("istio", {"connection_security_policy": "none"}) is False
    assert over_mtls("linkerd", {"tls": "no_identity"}) is False
    assert over_mtls("linkerd", {}) is None


def test_no_name_of_a_namespace_changes_a_query() -> None:
    query = MESH_METRICS[0].selector(("shop", "books-2"))
    assert query == 'istio_requests_total{destination_workload_namespace=~"shop|books-2"}'
    assert re.fullmatch(r"\w+", MESH_METRICS[0].selector(()))
