"""`meshwise export`: names by the conventions, formats that others read, a real Prometheus that agrees."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from tests.support.answering import server, url_of
from tests.support.fake_study import run_fake, small_study
from tests.support.prometheus import needs_prometheus, prometheus
from typer.testing import CliRunner

from meshwise.archive.findings import signed, write_findings
from meshwise.archive.query import answering, sources_of
from meshwise.archive.read import ArchiveReader
from meshwise.cli import main
from meshwise.cli.analyze import analyze_archive
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import to_json
from meshwise.series.http import Retries, TooLong, endpoint, exchange, persisting
from meshwise.series.lines import TimeLine, labels_of, number, plain
from meshwise.series.names import MetricFamily, MetricKind, base_unit, family_of
from meshwise.series.of_archive import BOUNDS_S, lines_of
from meshwise.series.otlp import requests_of as otlp_requests
from meshwise.series.remote_write import SLICE_MS, STALE, requests_of, write_request_class
from meshwise.series.sending import sent
from meshwise.study.file.read import parse_study
from meshwise.telemetry import envoy

COUNTED = """\
name: counted
environments: [none, istio]
factors: {posture: [none, plaintext, strict], rate: 200/s}
trial: {warmup: 100ms, duration: 500ms}
blocks: 2
count: {executions: 2}
"""
FORBIDDEN = """\
name: forbidden
environments: [istio]
factors: {posture: [strict+fine], rate: 200/s, forbidden_share: 20%}
trial: {warmup: 100ms, duration: 500ms}
blocks: 2
control: {same: [], twin: []}
"""
LEVEL = {"kind": "level", "mesh": "istio", "posture": "strict"}
NO_WAIT = Retries(sleep=lambda seconds: None)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "sent"
    run_fake(directory, small_study())
    reader = ArchiveReader.open(directory)
    write_findings(directory, signed(to_json(analyze_archive(reader)), reader.digests), reader.digests)
    return directory


def command(*words: str) -> Any:
    return CliRunner().invoke(main.app, ["export", *words])


def asked(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    with answering(sources_of(ArchiveReader.open(directory)), sql) as answer:
        return [row for batch in answer.rows for row in batch]


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "name", "kind", "unit", "factor"),
    [
        ("cpu_ns", "meshwise_cpu_seconds", "counter", "seconds", 1e-9),
        ("rss_bytes", "meshwise_rss_bytes", "gauge", "bytes", 1.0),
        ("net_sent_bytes_total", "meshwise_net_sent_bytes", "counter", "bytes", 1.0),
        ("tls_handshakes_total", "meshwise_tls_handshakes", "counter", "", 1.0),
        ("downstream_connections_total", "meshwise_downstream_connections", "counter", "", 1.0),
        ("downstream_connections", "meshwise_downstream_connections_active", "gauge", "", 1.0),
        ("x_unix_s", "meshwise_x_timestamp_seconds", "gauge", "seconds", 1.0),
        ("uptime_s", "meshwise_uptime_seconds", "gauge", "seconds", 1.0),
        ("sampling_cpu_ns", "meshwise_sampling_cpu_seconds", "gauge", "seconds", 1e-9),
        ("load_1m", "meshwise_load_1m", "gauge", "", 1.0),
    ],
)  # fmt: skip
def test_names_have_base_units(metric: str, name: str, kind: str, unit: str, factor: float) -> None:
    family, by = family_of(metric)
    assert (family.name, str(family.kind), family.unit, by) == (name, kind, unit, factor)
    assert not unit or family.name.endswith(f"_{unit}")
    assert family.sample_name == name + ("_total" if kind == "counter" else "")


def test_a_finding_per_request_has_base_units_too() -> None:
    assert base_unit("cpu_us_per_request") == ("cpu_seconds_per_request", "", 1e-6)
    assert base_unit("ns_per_instruction") == ("seconds_per_instruction", "", 1e-9)
    assert base_unit("throughput_rps") == ("throughput_per_second", "", 1.0)
    assert base_unit("response_p50_us") == ("response_p50_seconds", "seconds", 1e-6)


def test_no_two_metrics_of_a_proxy_share_a_family() -> None:
    """OpenMetrics knows one type per family; Envoy counts connections, and tells how many are open."""
    metrics = {metric for rule in envoy._RULES for metric in rule.metrics.values()}
    names: dict[str, set[str]] = {}
    for metric in metrics:
        family, _ = family_of(metric)
        names.setdefault(family.name, set()).add(metric)
    assert {name: found for name, found in names.items() if len(found) > 1} == {}


def test_numbers_and_labels_are_written_as_the_format_has_them() -> None:
    assert [number(value) for value in (1.0, 0.005, float("inf"), float("-inf"), float("nan"))] == [
        "1.0", "0.005", "+Inf", "-Inf", "NaN",
    ]  # fmt: skip
    assert labels_of({"b": 1, "a": "x", "empty": "", "none": None, "__own": "y", "0": "z"}) == (
        ("_0", "z"), ("a", "x"), ("b", "1"), ("own", "y"),
    )  # fmt: skip


# --- what the lines say ----------------------------------------------------------------------------


def all_series(archive: Path) -> dict[tuple[str, tuple[tuple[str, str], ...]], Any]:
    lines = [line for batch in lines_of(ArchiveReader.open(archive)) for line in batch]
    found = [series for line in lines for series in plain(line)]
    keyed = {(series.name, series.labels): series for series in found}
    assert len(keyed) == len(found), "a series is there twice"
    return keyed


def test_every_trial_is_there_on_the_wall_clock(archive: Path) -> None:
    reader = ArchiveReader.open(archive)
    series = all_series(archive)
    for row in reader.trials().to_dicts():
        (info,) = [
            s
            for (name, labels), s in series.items()
            if name == "meshwise_trial_info" and dict(labels)["trial"] == row["trial_id"]
        ]
        assert info.t_ns[0] == row["started_unix_ns"]
        assert dict(info.labels)["rate_rps"] == "200.0"
        answered = [
            s
            for (name, labels), s in series.items()
            if name == "meshwise_requests_total" and dict(labels)["trial"] == row["trial_id"]
        ]
        requests = reader.scan_requests([row["trial_id"]]).filter(pl.col("intended_ns") >= 0).collect()
        assert sum(s.values[-1] for s in answered) == requests.height
        assert all(s.values[0] == 0 and s.t_ns[0] == row["started_unix_ns"] for s in answered)
        assert all((np.diff(s.values) >= 0).all() for s in answered)


def test_histograms_count_what_the_requests_say(archive: Path) -> None:
    reader, series = ArchiveReader.open(archive), all_series(archive)
    trial_id = reader.trials()["trial_id"][0]
    requests = reader.scan_requests([trial_id]).filter(pl.col("intended_ns") >= 0).collect()
    seconds = (requests["done_ns"] - requests["intended_ns"]).to_numpy() / 1e9
    mine = {
        (name, dict(labels).get("le", "")): s
        for (name, labels), s in series.items()
        if dict(labels).get("trial") == trial_id and name.startswith("meshwise_response_duration_seconds")
    }
    for bound in BOUNDS_S:
        found = mine["meshwise_response_duration_seconds_bucket", number(bound)].values[-1]
        assert found == (seconds <= bound).sum()
    assert mine["meshwise_response_duration_seconds_sum", ""].values[-1] == pytest.approx(seconds.sum())
    assert mine["meshwise_response_duration_seconds_count", ""].values[-1] == len(seconds)


def test_telemetry_is_in_base_units(archive: Path) -> None:
    rows = asked(archive, "SELECT sum(value) / 1e9, count(*) FROM telemetry WHERE metric = 'cpu_ns'")
    mine = [s for (name, _), s in all_series(archive).items() if name == "meshwise_cpu_seconds_total"]
    assert sum(float(s.values.sum()) for s in mine) == pytest.approx(rows[0][0])
    assert sum(len(s.values) for s in mine) == rows[0][1]
    assert {dict(s.labels)["process"] for s in mine} == {"proxy", "service", "instrument"}


def test_counts_are_summed_over_the_windows_of_a_kind(tmp_path: Path) -> None:
    counted = parse_study(COUNTED, "counted.yaml")
    run_fake(tmp_path / "c", counted)
    rows = asked(
        tmp_path / "c",
        "SELECT trial_id, source, kind, sum(value), sum(requests) FROM counts WHERE metric = 'instructions' "
        "GROUP BY ALL",
    )
    assert rows
    found = {
        (
            name,
            told["trial"],
            f"{told['mesh']}/{told['process_set']}/{told['workload']}/proxy",
            told["kind"],
        ): s
        for (name, labels), s in all_series(tmp_path / "c").items()
        if name.startswith("meshwise_counted_") and "name" not in (told := dict(labels))
    }
    for trial_id, source, kind, value, requests in rows:
        assert found["meshwise_counted_instructions", trial_id, source, kind].values[-1] == value
        assert found["meshwise_counted_requests", trial_id, source, kind].values[-1] == requests


def test_refusals_that_had_to_come_are_told_from_errors(tmp_path: Path) -> None:
    run_fake(tmp_path / "f", parse_study(FORBIDDEN, "forbidden.yaml"))
    [[share]] = asked(tmp_path / "f", "SELECT avg(forbidden::INT) FROM requests WHERE intended_ns >= 0")
    found: dict[tuple[str, str, str], float] = {}
    for (name, labels), series in all_series(tmp_path / "f").items():
        if name == "meshwise_requests_total":
            told = dict(labels)
            key = told["status"], told.get("error", ""), told.get("forbidden", "")
            found[key] = found.get(key, 0.0) + series.values[-1]
    assert set(found) == {("200", "", ""), ("403", "http_status", "true")}
    assert found["403", "http_status", "true"] == pytest.approx(share * sum(found.values()))
    assert share == pytest.approx(0.2, abs=0.02)


def test_findings_are_there_with_their_bounds(archive: Path) -> None:
    (row,) = asked(
        archive,
        "SELECT estimate / 1e6, low / 1e6 FROM findings WHERE kind = 'level' AND metric = 'response_p50_us' "
        "AND mesh = 'istio' AND posture = 'strict' AND workload IS NULL",
    )
    mine = {
        dict(labels)["bound"]: float(s.values[0])
        for (name, labels), s in all_series(archive).items()
        if name == "meshwise_finding_response_p50_seconds" and LEVEL.items() <= dict(labels).items()
    }
    assert mine["estimate"] == pytest.approx(row[0])
    assert mine["low"] == pytest.approx(row[1])


# --- formats ---------------------------------------------------------------------------------------

LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*"'
LINE = re.compile(rf"^[a-zA-Z_:][a-zA-Z0-9_:]*(\{{({LABEL},?)+\}})? \S+ \d+\.\d{{3}}$")


def test_openmetrics_text_is_whole_and_in_order(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "study.om"
    assert command(str(archive), "--format", "openmetrics", "--out", str(out)).exit_code == 0
    lines = out.read_text().splitlines()
    assert lines[-1] == "# EOF"
    families: list[str] = []
    samples = 0
    last: dict[str, float] = {}
    for line in lines[:-1]:
        if line.startswith("# TYPE"):
            families.append(line.split()[2])
        elif not line.startswith("#"):
            assert LINE.match(line), line
            assert line.startswith(families[-1])
            key, _, t_s = line.rpartition(" ")
            key = key.rpartition(" ")[0]
            assert float(t_s) > last.get(key, 0.0)
            last[key] = float(t_s)
            samples += 1
    assert len(set(families)) == len(families)
    assert samples > 1000
    assert command(str(archive), "--format", "openmetrics").stdout == out.read_text()


def test_csv_has_a_row_per_point(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "study.csv"
    assert command(str(archive), "--format", "csv", "--out", str(out)).exit_code == 0
    with out.open() as stream:
        rows = list(csv.DictReader(stream))
    expected = sum(len(s.t_ns) for s in all_series(archive).values())
    assert len(rows) == expected
    cpu = sum(float(row["value"]) for row in rows if row["series"] == "meshwise_cpu_seconds_total")
    assert cpu == pytest.approx(
        asked(archive, "SELECT sum(value)/1e9 FROM telemetry WHERE metric='cpu_ns'")[0][0]
    )


def test_otlp_is_what_opentelemetrys_own_classes_read(archive: Path, tmp_path: Path) -> None:
    service = pytest.importorskip(
        "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2",
        reason="pip install opentelemetry-proto",
    )
    from google.protobuf import json_format

    out = tmp_path / "study.otlp"
    assert command(str(archive), "--format", "otlp", "--out", str(out)).exit_code == 0
    counted = histograms = 0
    for line in out.read_text().splitlines():
        request = json_format.Parse(line, service.ExportMetricsServiceRequest())
        for metric in request.resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == "meshwise_requests":
                assert metric.sum.is_monotonic
                assert metric.sum.aggregation_temporality == 2
                counted += len(metric.sum.data_points)
            if metric.name == "meshwise_response_duration_seconds":
                assert metric.unit == "s"
                for point in metric.histogram.data_points:
                    assert sum(point.bucket_counts) == point.count
                    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
                    histograms += 1
    assert counted
    assert histograms


def long_line(count: int, step_ns: int) -> TimeLine:
    family = MetricFamily("meshwise_x", MetricKind.GAUGE, "", "x")
    t_ns = 1_700_000_000 * 10**9 + np.arange(count) * step_ns
    return TimeLine(family, (("a", "b"),), t_ns, np.arange(count, dtype=np.float64))


def decoded(body: bytes) -> Any:
    plain_bytes = pa.Codec("snappy").decompress(body, decompressed_size=_size(body), asbytes=True)
    return write_request_class().FromString(plain_bytes)


def _size(body: bytes) -> int:
    """The length that snappy's block format begins with (a varint)."""
    size = shift = 0
    for byte in body:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return size
    raise AssertionError("no length")


def test_remote_write_goes_by_slices_of_time_and_marks_the_end() -> None:
    lines = [long_line(12_000, 10**9), long_line(3, 10**9)]
    found = list(requests_of(lines, 1000))
    assert sum(count for _, count in found) == 12_000 + 3 + 2
    assert max(count for _, count in found) <= 5000
    newest = 0
    values: list[float] = []
    for body, count in found:
        request = decoded(body)
        samples = [sample for series in request.timeseries for sample in series.samples]
        assert len(samples) == count
        assert min(sample.timestamp for sample in samples) > newest - 2 * SLICE_MS
        newest = max(newest, *(sample.timestamp for sample in samples))
        values += [sample.value for sample in samples]
        assert all(series.labels[0].name == "__name__" for series in request.timeseries)
    stale = np.array(values)[np.isnan(values)].view(np.uint64)
    assert len(stale) == 2
    assert (stale == np.float64(STALE).view(np.uint64)).all()
    assert decoded(found[0][0]).metadata[0].metric_family_name == "meshwise_x"


# --- sending ---------------------------------------------------------------------------------------


def refusal(act: Any) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        act()
    return caught.value


def test_a_server_that_says_later_is_asked_again() -> None:
    waits: list[float] = []
    with server(503, 429, 200, headers=(("Retry-After", "7"),)) as http:
        to = endpoint(url_of(http, "/w"))
        taken = sent([(b"x", 3), (b"y", 2)], to, {"X-A": "b"}, Retries(sleep=waits.append))
    assert taken == 5
    assert waits == [7.0, 7.0]
    assert [body for *_, body in http.seen] == [b"x", b"x", b"x", b"y"]
    assert http.seen[0][2]["X-A"] == "b"


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (400, b"out of bounds", "out_of_order_time_window"),
        (400, b"out of order sample", "exported to it before"),
        (404, b"not found", "/api/v1/write"),
        (401, b"", "--auth"),
        (302, b"", "redirects are not followed"),
        (500, b"disk full", "its log"),
    ],
)
def test_what_a_server_refuses_ends_it_with_a_remedy(status: int, body: bytes, hint: str) -> None:
    with server(status, body=body) as http:
        error = refusal(lambda: sent([(b"x", 1)], endpoint(url_of(http)), {}, NO_WAIT))
    assert error.code == "MW023"
    assert hint in error.remedy
    assert len(http.seen) == (5 if status >= 500 else 1)


def test_nobody_there() -> None:
    waits: list[float] = []
    with server(200) as http:
        gone = endpoint(url_of(http))
    error = refusal(lambda: sent([(b"x", 1)], gone, {}, Retries(sleep=waits.append)))
    assert error.code == "MW022"
    assert waits == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/y", "file:///etc/passwd", "127.0.0.1:9090", "http://", "http://u:p@h:9090", "http://h/?a=b",
        "http://h:99999", "http://h /x", "javascript:1", "",
    ],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    error = refusal(lambda: endpoint(url))
    assert error.code == "MW020"
    assert "u:p" not in str(error)


def test_credentials_come_from_a_file_and_are_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("Bearer s3cret\n")
    secret.chmod(0o600)
    with server(403, body=b"no") as http:
        to = endpoint(url_of(http), secret)
        error = refusal(lambda: sent([(b"x", 1)], to, {}, NO_WAIT))
    assert http.seen[0][2]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in f"{error}{to!r}{to}"
    secret.write_text("Basic me:s3cret\n")
    assert endpoint("http://h", secret).authorization == "Basic bWU6czNjcmV0"
    for text, mode in (("s3cret", 0o600), ("Bearer s3cret", 0o644), ("Basic s3cret", 0o600), ("", 0o600)):
        secret.write_text(text)
        secret.chmod(mode)
        error = refusal(lambda: endpoint("http://h", secret))
        assert error.code == "MW021"
        assert "s3cret" not in str(error)
    assert refusal(lambda: endpoint("http://h", tmp_path / "none")).code == "MW021"


def test_an_answer_that_never_ends_is_not_kept() -> None:
    with server(200, body=b"x" * 100_000) as http, pytest.raises(TooLong):
        exchange(endpoint(url_of(http)), "GET", "/", most_bytes=10_000)
    with server(204) as http:
        reply = persisting(lambda: exchange(endpoint(url_of(http)), "GET", "/"), NO_WAIT)
    assert reply.status == 204


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--format", "prometheus-remote-write"], "MW010"),
        (["--format", "csv", "--url", "http://h"], "MW010"),
        (["--format", "otlp", "--url", "http://h", "--out", "x"], "MW010"),
        (["--format", "openmetrics", "--step", "1us"], "MW010"),
        (["--format", "prometheus-remote-write", "--url", "gopher://h"], "MW020"),
    ],
)
def test_options_that_make_no_sense(archive: Path, words: list[str], code: str) -> None:
    error = command(str(archive), *words).exception
    assert isinstance(error, MeshwiseError)
    assert error.code == code


def test_a_file_is_there_whole_or_not_at_all(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study.om"
    out.write_text("former")
    monkeypatch.setattr("meshwise.series.openmetrics.label_text", lambda labels: 1 // 0)
    assert command(str(archive), "--format", "openmetrics", "--out", str(out)).exit_code != 0
    assert out.read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["study.om"]


def test_otlp_is_sent_in_pieces(archive: Path) -> None:
    with server(200, body=b"{}") as http:
        words = [str(archive), "--format", "otlp", "--url", url_of(http, "/v1/metrics")]
        assert command(*words).exit_code == 0
    lines = [line for batch in lines_of(ArchiveReader.open(archive)) for line in batch]
    assert {path for _, path, *_ in http.seen} == {"/v1/metrics"}
    assert len(http.seen) >= len(list(otlp_requests(lines)))
    assert all(json.loads(body)["resourceMetrics"] for *_, body in http.seen)


# --- a real Prometheus -----------------------------------------------------------------------------


def agreed(server: Any, archive: Path) -> None:
    """What Prometheus answers is what DuckDB says of the archive."""
    for trial_id, begun_ns, count, p50_us in asked(
        archive,
        "SELECT trial_id, started_unix_ns, count(*), quantile_disc(response_us, 0.5) "
        "FROM responses JOIN trials USING (trial_id) GROUP BY ALL",
    ):
        end_s = (
            asked(archive, f"SELECT max(done_ns) / 1e9 FROM responses WHERE trial_id = '{trial_id}'")[0][0]
            + begun_ns / 1e9
            + 3
        )
        total = f'sum(last_over_time(meshwise_requests_total{{trial="{trial_id}"}}[1m]))'
        assert server.number(total, end_s) == count
        buckets = f'last_over_time(meshwise_response_duration_seconds_bucket{{trial="{trial_id}"}}[1m])'
        told_s = server.number(f"histogram_quantile(0.5, {buckets})", end_s)
        upper = min(bound for bound in BOUNDS_S if bound >= p50_us / 1e6)
        lower = max((bound for bound in BOUNDS_S if bound < upper), default=0.0)
        assert lower <= told_s <= upper
        (cpu_s,) = asked(
            archive,
            "SELECT sum(most) / 1e9 FROM (SELECT source, arg_max(value, t_ns) AS most FROM telemetry "
            f"WHERE metric = 'cpu_ns' AND trial_id = '{trial_id}' GROUP BY source)",
        )[0]
        last = f'sum(last_over_time(meshwise_cpu_seconds_total{{trial="{trial_id}"}}[1m]))'
        assert server.number(last, end_s) == pytest.approx(cpu_s, rel=1e-9)


@needs_prometheus
def test_prometheus_takes_remote_write_and_agrees_with_duckdb(archive: Path, tmp_path: Path) -> None:
    with prometheus(tmp_path / "p") as real:
        words = ["--format", "prometheus-remote-write", "--url", f"{real.url}/api/v1/write"]
        told = command(str(archive), *words)
        assert told.exit_code == 0, told.exception
        agreed(real, archive)
        again = command(str(archive), *words).exception
        assert isinstance(again, MeshwiseError)
        assert "exported to it before" in again.remedy
        names = real.ask("label/__name__/values")
    assert {"meshwise_trial_info", "meshwise_requests_total", "meshwise_rss_bytes"} <= set(names)


@needs_prometheus
def test_promtool_takes_openmetrics_and_prometheus_agrees(archive: Path, tmp_path: Path) -> None:
    text, data = tmp_path / "study.om", tmp_path / "p/data"
    assert command(str(archive), "--format", "openmetrics", "--out", str(text)).exit_code == 0
    data.mkdir(parents=True)
    made = subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(data)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with prometheus(tmp_path / "p") as real:
        agreed(real, archive)


@needs_prometheus
def test_prometheus_says_why_it_refuses(archive: Path, tmp_path: Path) -> None:
    with prometheus(tmp_path / "p") as real:
        error = command(
            str(archive), "--format", "prometheus-remote-write", "--url", f"{real.url}/api/v2/nothing"
        ).exception
    assert isinstance(error, MeshwiseError)
    assert error.code == "MW023"
    assert "enable-remote-write-receiver" in error.remedy
