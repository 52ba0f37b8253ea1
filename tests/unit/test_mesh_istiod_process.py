"""What a program says that is named as istiod: answers that are none, too long, too late; and ports that were
taken. With a small program in its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.mesh_samples import view

from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import Patience
from meshwise.mesh.istio.istiod import process
from meshwise.mesh.istio.istiod.ads import CLUSTERS, connected
from meshwise.mesh.istio.istiod.generated import generate
from meshwise.mesh.istio.istiod.process import Istiod, IstioFilters, running

PATIENCE = Patience(ready_s=10.0, admin_s=1.0, settle_s=1.0, stop_s=2.0)
PROGRAM = """\
#!{python} -S
import http.server, json, os, sys
words = dict(zip(sys.argv[2::1], sys.argv[3::1]))
print(json.dumps([sys.argv, dict(os.environ), os.getcwd()]), flush=True)
{first}

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/ready":
            self.send_response(200); self.end_headers(); return
        {answer}

    def log_message(self, *_): pass

host, port = words["--httpAddr"].split(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""
WELL = 'self.send_response(200); self.end_headers(); self.wfile.write(b"{}")'


def program(directory: Path, answer: str = WELL, first: str = "") -> Path:
    path = directory / "istiod"
    path.write_text(PROGRAM.format(python=sys.executable, answer=answer, first=first))
    path.chmod(0o755)
    return path


def told(directory: Path) -> Any:
    """Its words, environment and directory."""
    (log,) = directory.glob("istiod-*.log")
    return yaml.safe_load(log.read_text().splitlines()[0])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_it_has_a_directory_and_an_environment_of_its_own_and_loopback_only(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/secret")
    filters = IstioFilters(metadata=False, stats=False, alpn=True)
    with running(program(tmp_path), home, "other.domain", filters, PATIENCE) as istiod:
        assert istiod.page("/anything") == {}
        argv, environment, directory = told(home)
    assert directory == str(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert "KUBECONFIG" not in environment
    assert environment["PILOT_ENABLE_METADATA_EXCHANGE"] == "false"
    assert environment["PILOT_ENABLE_ALPN_FILTER"] == "true"
    addresses = [argv[argv.index(name) + 1] for name in ("--grpcAddr", "--httpAddr", "--monitoringAddr")]
    assert all(each.startswith("127.0.0.1:") for each in addresses)
    assert argv[argv.index("--secureGRPCAddr") + 1] == argv[argv.index("--httpsAddr") + 1] == ""
    assert int(argv[argv.index("--ctrlz_port") + 1]) > 0, "else it takes any"
    mesh = yaml.safe_load((home / "mesh.yaml").read_text())
    assert (mesh["trustDomain"], mesh["defaultProviders"]) == ("other.domain", {"metrics": []})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('self.send_response(500); self.end_headers(); self.wfile.write(b"no")', "with 500"),
        ('self.send_response(200); self.end_headers(); self.wfile.write(b"{")', "Expecting"),
        ('self.send_response(200); self.end_headers(); self.wfile.write(b"[" * 100000)', ""),
        ('self.wfile.write(b"nonsense")', ""),
        ("import time; time.sleep(30)", "timed out"),
        ('self.send_response(200); self.end_headers(); self.wfile.write(b" " * 5000)', "more than 4000"),
    ],
)
def test_an_answer_that_is_none_is_said(
    tmp_path: Path, home: Path, answer: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOST_ANSWER_BYTES", 4000 if "5000" in answer else 1 << 20)
    with running(program(tmp_path, answer), home, patience=PATIENCE) as istiod:
        with pytest.raises(MeshwiseError, match="MW441") as failed:
            istiod.page("/debug/x?proxyID=y")
        assert "answer /debug/x" in str(failed.value)
        assert reason in str(failed.value)


def fails(istiod: Istiod) -> str:
    with pytest.raises(MeshwiseError, match="MW441") as failed:
        generate(istiod, view("").services, (), "cluster.local", 0)
    return str(failed.value)


def test_one_that_serves_no_stream_is_given_up(tmp_path: Path, home: Path) -> None:
    with running(program(tmp_path), home, patience=PATIENCE) as istiod:
        assert "configure meshwise-marker" in fails(istiod)
        with (
            pytest.raises(MeshwiseError, match="MW441"),
            connected(istiod, view("").service("client"), "cluster.local") as subscribe,
        ):
            subscribe({CLUSTERS: ()})


def test_one_that_ends_is_quoted(tmp_path: Path, home: Path) -> None:
    path = program(tmp_path, first="sys.exit('no such flag')")
    with pytest.raises(MeshwiseError, match="MW441") as failed, running(path, home, patience=PATIENCE):
        pass
    assert "no such flag" in str(failed.value)


def test_a_port_that_was_taken_is_no_end(tmp_path: Path, home: Path) -> None:
    mark = tmp_path / "mark"
    first = (
        f"mark = {str(mark)!r}\n"
        "if not os.path.exists(mark):\n"
        "    open(mark, 'w').close()\n"
        "    sys.exit('listen tcp: bind: address already in use')"
    )
    with running(program(tmp_path, first=first), home, patience=PATIENCE) as istiod:
        assert istiod.ready()
    assert sorted(each.name for each in home.glob("istiod-*.log")) == ["istiod-0.log", "istiod-1.log"]
