"""A service graph on real Envoy sidecars: every service is asked as often as the graph says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.people import ROOT, command_as, environment_as

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.binary import envoy_path
from meshwise.study.graph.read import read_graph
from meshwise.study.graph.sums import asked_errors, visits

GRAPH = """\
services:
- name: front
  isEntrypoint: true
  responseSize: 100
  aggregates: true
  script:
  - sleep: 4ms
  - - call: left
    - call: {service: right, probability: 30, size: 700}
  - call: {service: deep, size: 0}
- {name: left, responseSize: 10, script: [call: deep]}
- {name: right, responseSize: 20}
- {name: deep, responseSize: 30, namespace: data, errorRate: 5%, script: [sleep: 3ms]}
"""
RATE = 150


@pytest.fixture(autouse=True)
def _envoy() -> None:
    try:
        envoy_path()
    except MeshwiseError as error:
        pytest.skip(f"needs Envoy: {error.remedy}")


def run(file: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        command_as(ROOT, "-m", "tests.support.inside_graph", str(file), *words),
        env=environment_as(ROOT), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("protocol", "posture"), [("http1", "strict"), ("http2", "plaintext"), ("grpc", "strict+fine")]
)
def test_sleeps_chances_errors_and_sizes_are_as_the_graph_says(
    tmp_path: Path, protocol: str, posture: str
) -> None:
    file = tmp_path / "four.yaml"
    file.write_text(GRAPH)
    graph = read_graph(file).graph
    found = run(file, protocol, posture, str(RATE))
    assert found["failing"] == []
    assert found["failure"] == ""
    requests = found["requests"]
    assert requests == pytest.approx(RATE * 2.2, rel=0.02)

    good, asked = ("1000", "1013") if protocol == "grpc" else ("200", "500")
    assert set(found["statuses"]) <= {good, asked}
    share = asked_errors(graph)  # about a tenth
    assert found["statuses"].get(asked, 0) / requests == pytest.approx(share, abs=0.07)
    # 100 of its own, 10 from left, 30 from deep, and 20 more where right was asked
    framing = 8 if protocol == "grpc" else 0  # prefix, tag and length, which the instrument counts
    without, with_right = str(140 + framing), str(160 + framing)
    assert set(found["bytes"]) <= {"0", without, with_right}
    answered = found["bytes"][without] + found["bytes"][with_right]
    assert found["bytes"][with_right] / answered == pytest.approx(0.3, abs=0.12)
    assert found["fastest_ns"] >= 10_000_000  # 4 ms, then 3 ms behind left, then 3 ms again

    counted = found["visits"]
    total = counted["front"]
    for name, expected in visits(graph).items():
        assert counted[name] / total == pytest.approx(expected, abs=0.12), name
