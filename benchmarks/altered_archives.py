"""What altered archives do: many of them, each opened, analysed and reported in a process of its own.

    .venv/bin/python benchmarks/altered_archives.py [--seed N] [--seconds 120] [--replay NUMBER]

One alteration each, drawn from the seed: bits flipped, files cut, exchanged, doubled, removed, linked,
replaced by a FIFO, a directory or a terabyte of nothing; rows doubled, dropped, shuffled; columns of another
type; JSON of another shape. Three subjects, from `tests/fixtures/archives`: `manifest` (version 2), the same
with every digest made to fit again (`signed`), and `real` (version 1, few digests).

Each case must end in the same findings or in an error of the catalogue, within the time and the memory
(RLIMIT_AS), with nothing touched outside the archive. Other findings are a fault where digests should have
seen it (`manifest`) and counted for the others. Exit status 1 if there was a fault; it is printed with
its number, for `--replay`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tests.support.earlier import unpacked
from tests.support.signed import sign, sign_trial_files

from meshwise.archive.read import ArchiveReader
from meshwise.cli.analyze import analyze_archive
from meshwise.cli.report import report
from meshwise.core.errors import MeshwiseError
from meshwise.findings.document import to_json

MOST_ADDRESS_BYTES = 5 << 30
MOST_SECONDS = 60.0
SUBJECTS = ("manifest", "signed", "real")
PRELOADED = ["meshwise.cli.report", "meshwise.cli.analyze", "tests.support.earlier", "tests.support.signed"]
Alteration = Callable[[random.Random, Path, Path], str]
"""Alters the archive (second argument); the third is a directory outside it. Returns what was done."""


# --- alterations of any file --------------------------------------------------------------------


def files_of(archive: Path) -> list[Path]:
    return sorted(path for path in archive.rglob("*") if path.is_file() and path.name not in (".lock",))


def flip(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(files_of(archive))
    content = bytearray(path.read_bytes())
    times = rng.choice((1, 1, 1, 2, 20))
    for _ in range(times):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"{times} bits of {path.name} flipped"


def cut(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(files_of(archive))
    at = rng.randrange(path.stat().st_size)
    os.truncate(path, at)
    return f"{path.name} cut at {at}"


def overwrite(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(files_of(archive))
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.randrange(1, 200))
    content[start:end] = rng.choice((b"\0" * (end - start), rng.randbytes(end - start)))
    path.write_bytes(content)
    return f"{path.name} overwritten from {start} to {end}"


def append(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(files_of(archive))
    with path.open("ab") as stream:
        stream.write(rng.choice((b"\0", b"x" * 1000, path.read_bytes())))
    return f"{path.name} has more at its end"


def exchange(rng: random.Random, archive: Path, outside: Path) -> str:
    one, other = rng.sample(files_of(archive), 2)
    if rng.random() < 0.5:
        other = rng.choice([path for path in files_of(archive) if path.suffix == one.suffix])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    if rng.random() < 0.5:
        other.write_bytes(first)
    return f"{one.name} has the content of {other.name}"


def remove(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice([path for path in sorted(archive.rglob("*")) if path.name != ".lock"])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"{path.name} removed"


def link(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice([path for path in sorted(archive.rglob("*")) if path.name != ".lock"])
    target = outside / path.name
    shutil.move(path, target)
    if rng.random() < 0.7 or target.is_dir():
        path.symlink_to(rng.choice((target, target, Path("/dev/zero"), Path("/etc/passwd"), outside / "no")))
        return f"{path.name} is a link"
    path.hardlink_to(target)
    return f"{path.name} is a hard link"


def strange(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(files_of(archive))
    path.unlink()
    kind = rng.choice(("a FIFO", "a directory", "a terabyte", "empty"))
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    else:
        with path.open("wb") as stream:
            stream.truncate(1 << 40 if kind == "a terabyte" else 0)
    return f"{path.name} is {kind}"


def trap(rng: random.Random, archive: Path, outside: Path) -> str:
    """What is written next leads elsewhere."""
    name = rng.choice(("findings.json", "report.html", "findings.json.aside", "report.html.aside"))
    (archive / name).unlink(missing_ok=True)
    (outside / "thesis.txt").write_text("years of work")
    (archive / name).symlink_to(outside / "thesis.txt")
    return f"{name} is a link to a file outside"


# --- alterations of a table ---------------------------------------------------------------------


def tables_of(archive: Path) -> list[Path]:
    own = [archive / "design.parquet", archive / "trials.parquet"] * 4
    return own + sorted(archive.glob("requests/*")) + sorted(archive.glob("telemetry/*"))


def rows(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(tables_of(archive))
    table = pq.read_table(path)
    order = list(range(table.num_rows))
    what = rng.choice(("doubled", "dropped", "shuffled", "all dropped"))
    if what == "doubled":
        order.insert(rng.randrange(len(order) + 1), rng.choice(order))
    elif what == "dropped":
        order.remove(rng.choice(order))
    elif what == "shuffled":
        rng.shuffle(order)
    else:
        order = []
    pq.write_table(table.take(pa.array(order, pa.int64())), path)
    return f"rows of {path.name} {what}"


def many_rows(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(tables_of(archive))
    table = pq.read_table(path)
    wide = table.slice(0, 1).take(pa.array([0] * 2_000_000, pa.int32()))
    pq.write_table(wide, path, compression="zstd")
    return f"{path.name} has two million rows"


def column(rng: random.Random, archive: Path, outside: Path) -> str:
    path = rng.choice(tables_of(archive))
    table = pq.read_table(path)
    at = rng.randrange(table.num_columns)
    name, count = table.column_names[at], table.num_rows
    made: dict[str, Callable[[], Any]] = {
        "absent": lambda: None,
        "null": lambda: pa.nulls(count, table.column(at).type),
        "of type null": lambda: pa.nulls(count),
        "text": lambda: pa.array([rng.choice(("", "x", "-1", "\ud7ff", "a/../b")) for _ in range(count)]),
        "huge": lambda: pa.array([2**63 - 1] * count),
        "negative": lambda: pa.array([-rng.randrange(1, 10**18)] * count),
        "no number": lambda: pa.array([rng.choice((float("nan"), float("inf"), -1.0))] * count),
        "true": lambda: pa.array([True] * count),
        "bytes": lambda: pa.array([b"\xff\xfe"] * count),
        "lists": lambda: pa.array([[1]] * count),
        "structs": lambda: pa.array([{"a": 1}] * count),
        "a long text": lambda: pa.array(["x" * 100_000] * count).dictionary_encode(),
        "partly null": lambda: pc.if_else(
            pa.array([rng.random() < 0.2 for _ in range(count)], pa.bool_()),
            pa.scalar(None, table.column(at).type), table.column(at),
        ),
        "another row's": lambda: table.column(at).take(pa.array(rng.sample(range(count), count), pa.int64())),
        "JSON of another shape": lambda: pa.array(
            [rng.choice(("[1]", '{"checks": 3}', "{", "[" * 9999))] * count
        ),
    }  # fmt: skip
    what = rng.choice(list(made))
    try:
        values = made[what]()
    except (pa.ArrowException, ValueError):
        return "nothing"
    table = table.remove_column(at) if values is None else table.set_column(at, name, values)
    pq.write_table(table, path)
    return f"`{name}` of {path.name}: {what}"


def document(rng: random.Random, archive: Path, outside: Path) -> str:
    """A leaf or branch of a JSON file, or of the metadata of the design, is something else."""
    path = rng.choice([*sorted(archive.glob("*.json")), archive / "design.parquet"])
    table = pq.read_table(path) if path.suffix == ".parquet" else None
    value = json.loads(table.schema.metadata[b"meshwise"] if table else path.read_bytes())
    place, at = value, None
    for _ in range(rng.randrange(1, 6)):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        at = rng.choice(keys)
        if not isinstance(place[at], dict | list) or rng.random() < 0.2:
            break
        place = place[at]
    if at is None:
        return "nothing"
    if not isinstance(place, dict | list) or (isinstance(place, dict) and at not in place):
        return "nothing"
    if isinstance(place, list) and not (isinstance(at, int) and at < len(place)):
        return "nothing"
    if rng.random() < 0.2:
        del place[at]
    else:
        place[at] = rng.choice((None, -1, 1e308, "x", "", [], {}, [None], {"a": {}}, True, [[[[]]]], 2**80))
    text = json.dumps(value)
    if table is None:
        path.write_text(text)
    else:
        pq.write_table(table.replace_schema_metadata({"meshwise": text}), path)
    return f"`{at}` in {path.name} is something else"


ANY = (flip, flip, flip, cut, overwrite, append, exchange, remove, link, strange, trap)
INSIDE = (rows, rows, many_rows, column, column, column, column, document, document)


# --- one case -----------------------------------------------------------------------------------


def told(archive: Path) -> tuple[str, str]:
    """Findings and report as JSON."""
    findings = to_json(analyze_archive(ArchiveReader.open(archive)))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        report(archive, as_json=True)
    return json.dumps(findings), out.getvalue()


def child(archive: Path, expected: tuple[str, str] | None, answer: Connection) -> None:
    os.chdir(archive.parent)
    if expected is not None:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESS_BYTES, MOST_ADDRESS_BYTES))
    try:
        found = told(Path(archive.name))
        outcome = "same" if expected in (None, found) else "other findings"
        detail: Any = found if expected is None else ""
    except MeshwiseError as error:
        outcome, detail = f"refused {error.code}", str(error).splitlines()[0]
    except BaseException:  # noqa: BLE001  whatever it is, it is what is looked for
        outcome, detail = "traceback", traceback.format_exc()
    answer.send((outcome, detail, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def run(archive: Path, expected: tuple[str, str] | None) -> tuple[str, Any, int]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(archive, expected, there))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(MOST_SECONDS) else ("hang", "", 0)
    except EOFError:
        return "ended without a word", "", 0
    finally:
        process.kill()
        process.join()


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def alter(seed: int, number: int, archive: Path, outside: Path) -> str:
    subject = SUBJECTS[number % len(SUBJECTS)]
    rng = random.Random(f"{seed}/{number}")
    way = rng.choice(INSIDE) if subject == "signed" else rng.choice(ANY + INSIDE)
    done = way(rng, archive, outside)
    if subject == "signed":
        sign_trial_files(archive)
        sign(archive)
    return f"{subject}: {done}"


def faulty(subject: str, outcome: str) -> bool:
    if outcome == "other findings":
        return subject == "manifest"
    return not (outcome == "same" or outcome.startswith("refused"))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    options.add_argument("--seconds", type=float, default=120.0)
    options.add_argument("--replay", type=int, help="only this case, with all that it said")
    given = options.parse_args()
    counts: dict[str, Counter[str]] = {subject: Counter() for subject in SUBJECTS}
    faults, most_kib, number = 0, 0, given.replay or 0
    with tempfile.TemporaryDirectory(prefix="meshwise-altered-") as place:
        pristine = {name: unpacked(name, Path(place) / name) for name in ("manifest", "real")}
        pristine["signed"] = pristine["manifest"]
        expected: dict[str, tuple[str, str]] = {}
        for name in SUBJECTS:
            outcome, detail, _ = run(shutil.copytree(pristine[name], Path(place) / "at/first"), None)
            assert outcome == "same", detail
            expected[name] = detail
            shutil.rmtree(Path(place) / "at")
        deadline = time.monotonic() + given.seconds
        while time.monotonic() < deadline:
            subject = SUBJECTS[number % len(SUBJECTS)]
            case, outside = Path(place) / "at", Path(place) / "outside"
            outside.mkdir()
            archive = shutil.copytree(pristine[subject], case / "first")
            try:
                what = alter(given.seed, number, archive, outside)
            except (pa.ArrowException, ValueError) as error:  # Arrow cannot write what was wanted
                what = f"nothing, {error}"
            before = snapshot(outside)
            outcome, detail, kib = run(archive, expected[subject])
            if snapshot(outside) != before:
                outcome = "touched what is outside"
            counts[subject][outcome] += 1
            most_kib = max(most_kib, kib)
            if faulty(subject, outcome) or given.replay is not None:
                faults += faulty(subject, outcome)
                print(f"--replay {number} --seed {given.seed}: {what}: {outcome}\n{detail}", flush=True)
            shutil.rmtree(case)
            shutil.rmtree(outside)
            number += 1
            if given.replay is not None:
                break
    for subject, found in counts.items():
        print(
            f"{subject}: {found.total()} cases: "
            + ", ".join(f"{n} {word}" for word, n in found.most_common())
        )
    print(f"seed {given.seed}: {faults} faults; at most {most_kib / 1024:.0f} MiB resident")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
