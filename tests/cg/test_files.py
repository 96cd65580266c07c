"""Atomic writing: complete or not there, whatever goes wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cg.errors import StorageError
from cg.files import atomic_path, plain, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "x.txt"
    with atomic_path(target) as tmp:
        tmp.write_text("all")
        assert tmp.parent == target.parent
        assert tmp.suffix == ".txt"
        assert not target.exists()
    assert target.read_text() == "all"
    assert names(target.parent) == ["x.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_old_content_and_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    write_text(tmp_path / "x", "old")
    def write() -> None:
        with atomic_path(tmp_path / "x") as tmp:
            tmp.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_directory_replaces_its_older_self(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with atomic_path(tmp_path / "d") as tmp:
            tmp.mkdir()
            (tmp / "a").write_text(text)
    assert (tmp_path / "d" / "a").read_text() == "two"
    assert names(tmp_path) == ["d"]


def test_directory_of_other_things_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.tex").write_text("years")
    def write() -> None:
        with atomic_path(tmp_path / "d") as tmp:
            tmp.mkdir()
            (tmp / "a").write_text("x")

    with pytest.raises(StorageError, match=r"thesis\.tex"):
        write()
    assert (tmp_path / "d" / "thesis.tex").read_text() == "years"
    assert names(tmp_path) == ["d"]


def test_file_and_directory_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(StorageError, match="is a directory"):
        write_text(tmp_path / "d", "x")
    (tmp_path / "f").write_text("x")
    with pytest.raises(StorageError, match="is a file"), atomic_path(tmp_path / "f") as tmp:
        tmp.mkdir()
    assert names(tmp_path) == ["d", "f"]


def test_device_is_refused_and_survives() -> None:
    with pytest.raises(StorageError, match="neither a regular file"):
        write_text("/dev/null", "x")
    assert not Path("/dev/null").is_file()


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write .*f/inside"):
        write_text(tmp_path / "f" / "inside", "x")


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing was written"), atomic_path(tmp_path / "x"):
        pass


def test_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"input\.csv"), atomic_path(tmp_path / "x"):
        (tmp_path / "elsewhere" / "input.csv").read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on file size (POSIX)")
def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on file size gives the write error of a full disk, in a process of its own."""
    write_text(tmp_path / "x", "old")
    code = ("import resource, sys; from cg.files import write_text\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            f"write_text({str(tmp_path / 'x')!r}, 'y' * 100_000)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"StorageError: cannot write {tmp_path / 'x'}" in done.stderr
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": np.array([1.5, np.nan]), "b": np.int64(2), "c": tmp_path, "d": (float("inf"),)})
    assert (tmp_path / "x.json").read_text().count("null") == 2
    assert plain(np.float32(0.5)) == 0.5
    assert plain({"a": {1}}) == {"a": [1]}
