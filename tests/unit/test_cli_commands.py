"""The command line as a whole: help, examples, exit statuses, colour, and the page written from it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.testing import CliRunner

from meshwise import __version__
from meshwise.cli import doctor, main, plan
from meshwise.core.errors import MeshwiseError
from meshwise.testbed.local.checks import CheckResult, Grade

ROOT = Path(__file__).parents[2]
PRINTS_DATA = {
    "doctor",
    "plan",
    "analyze",
    "query",
    "import prometheus",
    "load",
    "mesh diff",
    "proxies list",
    "proxies pull",
    "proxies add",
    "proxies verify",
}


@cache
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/commands_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ALL = [(" ".join(words[1:]), text, group) for words, text, group in script().commands()]
SINGLE = [(name, text) for name, text, group in ALL if not group]
NAMES = [name for name, _ in SINGLE]


def test_the_list_is_whole() -> None:
    assert {"doctor", "plan", "run", "analyze", "report", "load", "schema", "proxies pull"} <= set(NAMES)
    assert set(NAMES) >= PRINTS_DATA


@pytest.mark.parametrize(("name", "text"), SINGLE, ids=NAMES)
def test_help_has_an_example_that_its_own_options_allow(name: str, text: str) -> None:
    joined = re.sub(r"\n +", " ", text)
    found = re.search(r"Example: (meshwise .+?) (?:Arguments|Options):", joined.replace("\n", " "))
    assert found, text
    words = shlex.split(found[1])
    assert words[1:][: len(name.split())] == name.split()
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", text.partition("Options:")[2]), option


@pytest.mark.parametrize("name", sorted(PRINTS_DATA))
def test_what_prints_data_prints_json(name: str) -> None:
    assert re.search(r"^  --json  ", dict(SINGLE)[name], re.MULTILINE)


def test_the_page_of_commands_is_what_they_say() -> None:
    pinned = re.search(r"^typer==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if pinned is None or typer.__version__ != pinned[1]:
        pytest.skip(
            f"typer {typer.__version__} words help in another way; `make test` installs the pinned one"
        )
    written = (ROOT / "docs/commands.md").read_text()
    assert written == script().reference(), "stale: run `python scripts/commands_reference.py`"


# --- exit statuses ---------------------------------------------------------------------------------


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["meshwise", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


def test_the_version(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_main(monkeypatch, "--version") == 0
    assert capfd.readouterr().out == f"meshwise {__version__}\n"


def test_help_is_shown_to_who_says_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(monkeypatch) == 2
    said = capfd.readouterr()
    assert "Commands:" in said.out + said.err


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_bad_input(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *name.split(), "--no-such-option") == 2
    assert "--no-such-option" in capfd.readouterr().err


def test_an_unknown_command_is_bad_input(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "measure") == 2
    assert "No such command 'measure'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("plan", "/nowhere/study.yaml"), 2, "MW109"),
        (("run", "/nowhere/study.yaml", "--out", "/nowhere/out"), 2, "MW109"),
        (("analyze", "/nowhere"), 2, "MW604"),
        (("proxies", "pull", "nonsense"), 2, "MW801"),
        (("proxies", "path", "linkerd"), 3, "MW811"),
    ],
)
def test_an_error_is_two_lines_and_a_status(
    words: tuple[str, ...],
    status: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MESHWISE_LINKERD_PROXY", raising=False)
    assert run_main(monkeypatch, *words) == status
    said = capfd.readouterr()
    assert said.out == ""
    what, hint = said.err.splitlines()
    assert what.startswith("error: ")
    assert what.endswith(f"[{code}]")
    assert hint.startswith("hint: ")


def test_ctrl_c_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "load_study", interrupted)
    done = CliRunner().invoke(main.app, ["plan", "study.yaml"])
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    words = [sys.executable, "-c", "from meshwise.cli.main import main; main()", "schema"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait()) == (b"", -signal.SIGPIPE), "as the shell expects"


def test_meshwise_errors_are_not_swallowed_on_the_way() -> None:
    done = CliRunner().invoke(main.app, ["plan", "/nowhere/study.yaml"])
    assert isinstance(done.exception, MeshwiseError)


# --- colour ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False), ("", False)])
def test_no_color_is_obeyed(
    no_color: str | None, coloured: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """no-color.org: present and not empty; here an empty one counts as well."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(doctor, "all_checks", lambda: (CheckResult("cpu", "two CPUs", Grade.OK),))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(typer.Exit):
        doctor.doctor()
    assert ("\033[3" in capfd.readouterr().out) is coloured


def test_json_is_whole_and_alone_on_stdout() -> None:
    done = CliRunner().invoke(main.app, ["plan", str(ROOT / "studies/quickstart.yaml"), "--json"])
    assert json.loads(done.stdout)["study"] == "quickstart"
    assert done.stderr == ""


def test_the_help_leads_from_a_machine_to_a_report() -> None:
    text = " ".join(CliRunner().invoke(main.app, ["--help"], terminal_width=200).output.split())
    steps = ("meshwise doctor", "meshwise plan", "meshwise run", "meshwise analyze", "meshwise report")
    places = [text.find(step, text.index("Start with")) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


ENTRY = """
import os, signal, sys
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {during!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except KeyboardInterrupt:
                raise ImportError("as libraries do") from None
sys.meta_path.insert(0, Slow())
from meshwise.cli.entry import main
main()
"""


@pytest.mark.parametrize("during", ["typer", "meshwise.cli.plan", "polars"])
def test_ctrl_c_within_an_import_is_one_word(during: str) -> None:
    words = [
        sys.executable,
        "-c",
        ENTRY.format(during=during),
        "analyze" if during == "polars" else "plan",
        "x",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_the_first_lines_of_the_program_import_next_to_nothing() -> None:
    asked = (
        "import sys; before = set(sys.modules); import meshwise.cli.entry; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert not {"typer", "rich", "numpy", "polars", "meshwise.cli.main"} & set(done.stdout.split())


def test_a_study_that_is_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "study.yaml")
    error = CliRunner().invoke(main.app, ["plan", str(tmp_path / "study.yaml")]).exception
    assert isinstance(error, MeshwiseError)
    assert (error.code, error.what) == ("MW109", "cannot read the study: it is a FIFO, not a regular file")
    (tmp_path / "own.yaml").write_text("name: x\nenvironments: [none]\ntopology: {graph: study.yaml}\n")
    error = CliRunner().invoke(main.app, ["plan", str(tmp_path / "own.yaml")]).exception
    assert isinstance(error, MeshwiseError)
    assert "it is a FIFO, not a regular file" in error.what
