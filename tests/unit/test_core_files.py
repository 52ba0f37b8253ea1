"""Files in a directory that somebody else has prepared: nothing outside it is read, written or removed."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fake_study import run_fake, small_study
from typer.testing import CliRunner

from meshwise.archive.store import Archive
from meshwise.cli.main import app
from meshwise.core.errors import MeshwiseError
from meshwise.core.files import Folder, NotPlain, disk_troubles, reading, writing
from meshwise.study.design.blocks import design

STUDY = small_study()
SECRET = "years of work"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere/thesis.txt"
    path.parent.mkdir()
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("files") / "archive"
    run_fake(directory, STUDY)
    return directory


@pytest.fixture
def archive(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "archive"))


def symbolic(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def start(directory: Path, *, resume: bool = False) -> None:
    Archive.start(directory, STUDY, design(STUDY), {"testbed": "fake"}, resume=resume).close()


def command(*words: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        assert CliRunner().invoke(app, [*words, str(directory)]).exit_code == 0

    return act


@pytest.mark.parametrize("link", [symbolic, hard])
@pytest.mark.parametrize(
    "name", [".probe.aside", "study.yaml.aside", "environment.json.aside", "trials.parquet.aside"]
)
def test_links_that_wait_for_a_new_archive_lead_nowhere(
    tmp_path: Path, victim: Path, name: str, link: Callable[[Path, Path], None]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    link(out / name, victim)
    start(out)
    assert victim.read_text() == SECRET
    assert not (out / name).exists()


@pytest.mark.parametrize("link", [symbolic, hard])
@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("findings.json.aside", command("analyze")),
        ("findings.json", command("analyze")),
        ("report.html.aside", command("report")),
        ("report.html", command("report")),
    ],
)
def test_links_that_wait_in_an_archive_lead_nowhere(
    archive: Path,
    victim: Path,
    name: str,
    act: Callable[[Path], None],
    link: Callable[[Path, Path], None],
) -> None:
    command("analyze")(archive)
    (archive / name).unlink(missing_ok=True)
    link(archive / name, victim)
    act(archive)
    assert victim.read_text() == SECRET
    assert not (archive / name).is_symlink()


@pytest.mark.parametrize("link", [symbolic, hard])
def test_a_lock_that_is_a_file_elsewhere_is_refused(
    tmp_path: Path, victim: Path, link: Callable[[Path, Path], None]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    link(out / ".lock", victim)
    with pytest.raises(MeshwiseError) as caught:
        start(out)
    assert (caught.value.code, caught.value.where) == ("MW614", str(out / ".lock"))
    assert victim.read_text() == SECRET


@pytest.mark.parametrize("name", ["requests", "telemetry", "postures"])
def test_a_directory_that_is_a_link_is_refused_and_what_it_leads_to_stays(
    tmp_path: Path, victim: Path, name: str
) -> None:
    (victim.parent / "b000-p00.parquet").write_text(SECRET)
    (victim.parent / "left.aside").write_text(SECRET)
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to(victim.parent)
    with pytest.raises(MeshwiseError) as caught:
        start(out)
    assert (caught.value.code, "symbolic link" in caught.value.what) == ("MW614", True)
    assert sorted(path.name for path in victim.parent.iterdir()) == [
        "b000-p00.parquet", "left.aside", "thesis.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["requests", "telemetry", "postures"])
def test_a_directory_that_became_a_link_is_not_cleaned_on_resume(
    archive: Path, victim: Path, name: str
) -> None:
    for left in ("orphan.parquet", "left.aside"):
        (victim.parent / left).write_text(SECRET)
    shutil.copytree(archive / name, victim.parent, dirs_exist_ok=True)
    shutil.rmtree(archive / name)
    (archive / name).symlink_to(victim.parent)
    with pytest.raises(MeshwiseError):
        start(archive, resume=True)
    assert {"orphan.parquet", "left.aside", "thesis.txt"} <= {path.name for path in victim.parent.iterdir()}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


STRANGE = {
    "a symbolic link": lambda path: path.symlink_to("/dev/zero"),
    "a FIFO": fifo,
    "a directory": Path.mkdir,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_plain_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    STRANGE[kind](tmp_path / "x")
    with Folder.open(tmp_path) as folder:
        with pytest.raises(NotPlain, match=kind) as caught:
            folder.read("x", 10)
        assert caught.value.filename == str(tmp_path / "x")
        with pytest.raises(NotPlain, match=kind):
            folder.own("x")


def test_devices_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listening(Path("socket"))  # a short name: that of a socket has at most 107 bytes
    with Folder.open(tmp_path) as folder, pytest.raises(NotPlain, match="a socket"):
        folder.opened("socket")
    with Folder.open(Path("/dev")) as folder, pytest.raises(NotPlain, match="a device"):
        folder.opened("null")


def test_a_file_that_is_larger_than_it_may_be_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
    with Folder.open(tmp_path) as folder, pytest.raises(NotPlain, match="1,099,511,627,776 bytes"):
        folder.sha256("x", at_most=1000)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")

    def fail() -> None:
        with Folder.open(tmp_path) as folder, folder.writing("x") as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "old")]
    with Folder.open(tmp_path) as folder:
        folder.write("x", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "new")]


def test_the_user_s_own_links_are_followed_and_devices_written_to(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/page.html").write_text("old")
    (tmp_path / "link").symlink_to("there/page.html")
    with writing(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there/page.html").read_text() == "new"
    with writing(Path("/dev/null")) as stream:
        stream.write(b"new")
    assert Path("/dev/null").is_char_device()


def test_a_pipe_is_written_to_by_the_name_that_a_shell_gives_it() -> None:
    for_reading, for_writing = os.pipe()
    with writing(Path(f"/dev/fd/{for_writing}")) as stream:
        stream.write(b"new")
    os.close(for_writing)
    with os.fdopen(for_reading, "rb") as pipe:
        assert pipe.read() == b"new"


def test_a_name_that_a_directory_has_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(MeshwiseError) as caught, disk_troubles(tmp_path), Folder.open(tmp_path) as folder:
        folder.write("x", b"new")
    assert (caught.value.code, caught.value.where) == ("MW606", str(tmp_path / "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_input_is_a_regular_file_or_where_it_may_be_the_pipe_of_a_shell(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"words")
    with reading(tmp_path / "plain") as stream:
        assert stream.read() == b"words"
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (tmp_path / "fifo", "a FIFO"),
        (tmp_path, "a directory"),
        (Path("/dev/zero"), "a device"),
    ):
        for piped in (False, True):
            with (
                pytest.raises(NotPlain, match=f"it is {why}, not a regular file"),
                reading(path, piped=piped),
            ):
                pass
    ends = os.pipe()
    try:
        os.write(ends[1], b"piped")
        with pytest.raises(NotPlain, match="it is a FIFO"), reading(Path(f"/dev/fd/{ends[0]}")):
            pass
        with reading(Path(f"/dev/fd/{ends[0]}"), piped=True) as stream:
            os.close(ends[1])
            assert stream.read() == b"piped"
    finally:
        os.close(ends[0])
