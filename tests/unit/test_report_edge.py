"""What leaves meshwise arrives, harms no terminal, and fails as a shell expects."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from meshwise.core.refusals import refusal
from meshwise.report import edge
from meshwise.report.edge import console, encoded, visible

ROOT = Path(__file__).parents[2]
MAIN = "from meshwise.cli.main import main; main()"
PLAN = ["plan", "studies/quickstart.yaml"]
HOSTILE = "a\x1b[31mred\x1b]0;title\x07 [bold]b[/x] \x9bc \u202etxt \r over \x7f"

COMMAND = """
import logging, sys, time, typer
from pathlib import Path
from meshwise.core import messages
from meshwise.report import edge
from meshwise.report.edge import console, run_command
def command():
    {}
sys.exit(run_command(command))
"""


def run(script: str, *words: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`redirect` as a shell has it; what stdout and stderr got, when they are not sent elsewhere."""
    shell = ["bash", "-c", f'exec "$@" {redirect}', "bash", sys.executable, "-c", script, *words]
    return subprocess.run(
        shell, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def snippet(*lines: str) -> str:
    return COMMAND.format("\n    ".join(lines))


@pytest.mark.parametrize(
    ("words", "redirect"),
    [(["schema"], ">&-"), (PLAN, ">&-"), (PLAN, ">/dev/full"), ([*PLAN, "--json"], ">/dev/full")],
)
def test_what_stdout_does_not_take_stands_on_stderr(words: Sequence[str], redirect: str) -> None:
    lost = run(MAIN, *words, redirect=redirect)
    assert (lost.returncode, lost.stdout) == (3, "")
    assert lost.stderr.splitlines()[-2].endswith("[MW224]")
    if redirect == ">&-":
        whole = _without_memory(run(MAIN, *words).stdout)
        assert _without_memory(lost.stderr).startswith(whole), "the whole of it"


def _without_memory(text: str) -> str:
    """What is free changes from one moment to the next."""
    return re.sub(r"\([\d.]+[GM]iB here\)", "", text)


def test_a_reader_that_has_gone_ends_it_by_sigpipe_after_its_work(tmp_path: Path) -> None:
    script = snippet("print('one')", f"Path({str(tmp_path / 'done')!r}).write_text('')", "print('two')")
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", -signal.SIGPIPE)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    "redirect", ["2>/dev/full", "2>&-", "2> >(exec true)"], ids=["full", "closed", "gone"]
)
def test_nobody_reading_stderr_changes_nothing(redirect: str) -> None:
    told = snippet(
        "typer.echo('x', err=True)", "time.sleep(0.3)", "typer.echo('y', err=True)", "print('done')"
    )
    done = run(told, redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_encoding_without_the_letters_gets_plainer_ones() -> None:
    done = run(snippet("print('5 µs – 3 × … 例')", "console().print('─ µs √')"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "5 us - 3 x ... \\u4f8b\n- us v\n")
    assert encoded("😀", "latin-1") == b"\\ud83d\\ude00", "as JSON writes it"


def heeding() -> None:
    """Ctrl-C is ignored in what a script starts in the background, SIGHUP under nohup: tests may run so."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_after_its_clean_up(number: signal.Signals, tmp_path: Path) -> None:
    script = snippet(
        "try:", "    print('up', flush=True); time.sleep(60)",
        "finally:", f"    time.sleep(0.2); Path({str(tmp_path / 'cleaned')!r}).write_text('')",
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heeding,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)  # a second Ctrl-C does not cut the clean-up short
        assert process.communicate()[1] == b"interrupted\n"
        assert process.returncode == 130
    assert (tmp_path / "cleaned").exists()


def test_under_nohup_a_lost_terminal_ends_nothing() -> None:
    script = snippet("import os, signal", "os.kill(os.getpid(), signal.SIGHUP)", "print('done')")
    ignoring = "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); " + (
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", ignoring, script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "done\n")


# --- text from outside -----------------------------------------------------------------------------


def harmless(text: str) -> None:
    assert not [letter for letter in text if visible(letter) != letter]


def test_unseen_characters_are_written_as_json_writes_them() -> None:
    assert visible("tab\tand\nlines stay, µ 例 😀 too") == "tab\tand\nlines stay, µ 例 😀 too"
    assert visible("\x1b[31m") == "\\u001b[31m"
    assert json.loads(f'"{visible(chr(0x9B) + chr(0x7F) + chr(0x202E))}"') == "\x9b\x7f\u202e"
    assert visible(os.fsdecode(b"caf\xe9")) == "caf\\udce9"
    assert visible("q\u200b\ufeff\u2060\xad") == "q\\u200b\\ufeff\\u2060\\u00ad"
    assert json.loads(f'"{visible(chr(0xE0041))}"') == "\U000e0041"
    assert visible("👩\u200d🔬") == "👩\u200d🔬", "joined letters stay"


@pytest.mark.parametrize("way", ["print({})", "typer.echo({})", "console().print({})", "logging.warning({})",
                                 "raise messages.REFUSED.error({}, what='x', remedy={})"])  # fmt: skip
def test_no_way_out_lets_an_escape_through(way: str) -> None:
    done = run(snippet(way.replace("{}", ascii(HOSTILE))))
    said = done.stdout + done.stderr
    harmless(said)
    assert "[bold]b[/x] \\u009bc \\u202etxt \\u000d over \\u007f" in said, "no markup either"


def test_nothing_goes_round_the_edge() -> None:
    """Typer's and Python's own ways out write to the streams that the edge has replaced; rich's do not."""
    source = Path(edge.__file__).parents[1]
    files = [path for path in source.rglob("*.py") if path != Path(edge.__file__)]
    round_it = re.compile(
        r"(?<![\w.])(?:Console|Markdown)\(|from_markup|sys\.__std|rich import print|inspect\("
    )
    assert [str(path) for path in files if round_it.search(path.read_text())] == []


def test_whatever_rich_draws_on_a_terminal_is_harmless() -> None:
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE, style="red")
    made = console(width=200)
    with made.capture() as captured:
        for drawn in (HOSTILE, Text(HOSTILE), table, Padding(HOSTILE, 1)):
            made.print(drawn)
        made.rule(HOSTILE)
    harmless(captured.get())
    assert captured.get().count("\\u001b[31mred") == 7


def test_a_terminal_gets_colours_and_no_escape_of_others(tmp_path: Path) -> None:
    script = snippet(
        "from rich.live import Live", "from rich.text import Text",
        "with Live(Text('\\x1b[5m', 'red'), console=console(stderr=True), refresh_per_second=9) as live:",
        f"    print({HOSTILE!a})", "    live.update(Text('\\x1b[6m', 'red'), refresh=True)",
        "console().print(Text('end', 'red'))",
    )  # fmt: skip
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", script], {**os.environ, "TERM": "xterm"})
    seen = b""
    try:
        while more := os.read(terminal, 4096):
            seen += more
    except OSError:  # the terminal was closed
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen
    assert b"\x1b[31mend" in seen
    assert b"\x1b[31m\\u001b[5m" in seen
    assert b"\x1b[31m\\u001b[6m" in seen
    assert not [bad for bad in (b"\x1b[5m", b"\x1b[6m", b"\x07", b"\x1b]0") if bad in seen]


def test_a_hostile_study_and_a_hostile_store_are_shown(tmp_path: Path) -> None:
    study = tmp_path / "[red]x[" / "blue]\x1b[31m.yaml"
    study.parent.mkdir()
    study.write_text((ROOT / "studies/quickstart.yaml").read_text())
    shown = run(MAIN, "plan", str(study))
    assert (shown.returncode, shown.stderr) == (0, "")
    harmless(shown.stdout)
    assert "[red]x[/blue]\\u001b[31m.yaml" in shown.stdout
    study.write_text('"\\e[31mboo[/x]": 1\n')
    refused = run(MAIN, "plan", str(study))
    assert refused.returncode == 2
    harmless(refused.stderr)
    assert "\\u001b[31mboo[/x]" in refused.stderr

    place = tmp_path / "meshwise/proxies"
    place.mkdir(parents=True)
    names = {"proxy": "linkerd", "version": "[/x]\x1b[2J", "architecture": "amd64"}
    entry = names | {"digest": f"sha256:{0:064}", "source": "reg\x1b[31m/[/y]", "stored_at": "2026"}
    (place / "index.json").write_text(json.dumps({"proxies": [entry]}))
    listed = run(MAIN, "proxies", "list", XDG_CACHE_HOME=str(tmp_path))
    assert listed.returncode == 0, listed.stderr
    harmless(listed.stdout)
    assert "[/x]\\u001b[2J" in listed.stdout


def test_the_system_s_refusals_are_words() -> None:
    lost = f"import os, tempfile; d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d); {MAIN}"
    done = run(lost, "run", str(ROOT / "studies/quickstart.yaml"), "--out", "x")
    assert done.returncode == 3, done.stderr
    assert "the working directory does not exist any more [MW221]" in done.stderr


@pytest.mark.parametrize("how", ["importing", "before any command"])
def test_too_little_memory_is_words_whenever_it_is_met(how: str) -> None:
    words = "libx.so: failed to map segment from shared object"
    place, raised = {
        "importing": ("get_command", f"ImportError({words!r})"),
        "before any command": ("make_context", "MemoryError"),
    }[how]
    harm = f"cli._Commands.{place} = lambda *_, **__: (_ for _ in ()).throw({raised})"
    done = run(f"import meshwise.cli.main as cli; {harm}; cli.main()", "doctor")
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert "no memory is left [MW220]" in done.stderr
    refused = refusal(OSError(errno.EFBIG, "File too large"))
    assert refused is not None
    assert "ulimit -f" in refused.remedy
