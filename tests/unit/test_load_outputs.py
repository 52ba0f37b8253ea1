"""The files of `meshwise load`: whole, or what was there before."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from meshwise.cli.load_output import open_outputs
from meshwise.core.errors import MeshwiseError

TABLE = pa.table({"intended_ns": [1, 2], "error": pa.array(["", "reset"]).dictionary_encode()})


def test_a_file_keeps_what_it_had_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("of yesterday")

    def interrupted() -> None:
        with open_outputs(None, path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(path.name, "of yesterday")]
    with open_outputs(None, path) as outputs:
        assert path.read_text() == "of yesterday"
        outputs.write(lambda: TABLE)
    assert path.read_text().splitlines() == ['"intended_ns","error"', '1,""', '2,"reset"']
    assert len(list(tmp_path.iterdir())) == 1


def test_one_that_fails_leaves_the_other(tmp_path: Path) -> None:
    def write() -> None:
        with open_outputs(Path("/dev/full"), tmp_path / "requests.csv") as outputs:
            outputs.write(lambda: TABLE)

    with pytest.raises(MeshwiseError) as caught:
        write()
    assert (caught.value.code, caught.value.where) == ("MW310", "/dev/full")
    assert (tmp_path / "requests.csv").read_text().count("\n") == 3


def test_what_a_run_reads_is_not_replaced(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s\n0\n")
    with pytest.raises(MeshwiseError, match="would replace"), open_outputs(None, trace, (None, trace)):
        pass
    assert trace.read_text() == "time_s\n0\n"
