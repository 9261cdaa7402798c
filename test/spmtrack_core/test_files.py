"""Paths and texts of users, and files that appear when they are complete."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spmtrack_core.files import check_output, read_text, user_path, write_beside


def test_a_file_replaces_the_old_one_only_when_it_is_complete(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_beside(path, lambda beside: beside.write_text("first"))

    def fail(beside):
        beside.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_beside(path, fail)
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "b.txt").symlink_to("disk/real.txt")
    write_beside(tmp_path / "b.txt", lambda beside: beside.write_text("new"))
    assert (tmp_path / "b.txt").is_symlink()
    assert (tmp_path / "disk" / "real.txt").read_text() == "new"


def test_a_pipe_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(
        target=lambda: read.append((tmp_path / "pipe").read_text()), daemon=True
    )
    reader.start()
    check_output(tmp_path / "pipe")

    def write(path):  # as safetensors does
        made = path.with_name("made")
        made.write_text("1,2,3,4")
        made.replace(path)

    write_beside(tmp_path / "pipe", write)
    reader.join(10)
    assert read == ["1,2,3,4"]
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(OSError, match="/dev/full cannot be written: No space left"):
        write_beside("/dev/full", lambda path: path.write_text("1,2,3,4"))


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
@pytest.mark.parametrize(("mode", "content"), [("a", "old\nnew\nend\n"), ("w", "new\nend\n")])
def test_an_open_file_is_written_to_where_it_stands(tmp_path, name, mode, content):
    """As of ``spmtrack --boxes /dev/stdout >> all.log``, which says more after the boxes."""
    log = tmp_path / "all.log"
    log.write_text("old\n")
    with log.open(mode) as file:
        path = tmp_path / name.format(file.fileno())
        if name == "link":  # as /dev/stdout is one
            path.symlink_to(f"/proc/self/fd/{file.fileno()}")
        check_output(path)
        write_beside(path, lambda made: made.write_text("new\n"))
        file.write("end\n")
    assert log.read_text() == content
    assert [each for each in os.listdir(tmp_path) if each != "link"] == ["all.log"]


def test_an_open_file_that_takes_nothing_is_named(tmp_path):
    (tmp_path / "a.txt").touch()
    with (tmp_path / "a.txt").open() as file:  # only to be read
        path = f"/dev/fd/{file.fileno()}"
        with pytest.raises(OSError, match=f"{path} cannot be written: "):
            write_beside(path, lambda made: made.write_text("new"))


def same(path):
    return path / "in.mp4"


def soft(path):
    (path / "link.mp4").symlink_to("in.mp4")
    return path / "link.mp4"


def hard(path):
    os.link(path / "in.mp4", path / "hard.mp4")
    return path / "hard.mp4"


def around(path):
    (path / "folder").symlink_to(path)
    return path / "folder" / ".." / path.name / "in.mp4"


@pytest.mark.parametrize("make", [same, soft, hard, around])
def test_an_output_that_is_an_input_is_refused(tmp_path, make):
    (tmp_path / "in.mp4").write_text("precious")
    with pytest.raises(ValueError, match=r"is an input of this run .*choose another name"):
        check_output(make(tmp_path), [tmp_path / "in.mp4"])


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("folder", "folder is a folder; expected the name of a file"),
        ("file/b.txt", "file/b.txt cannot be written: (File exists|Not a directory)"),
        ("x" * 300, "cannot be written: File name too long"),
        ("x" * 255, "cannot be written: File name too long"),  # of the file until it is complete
        ("x" * 300 + "/b.txt", "cannot be written: File name too long"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name, match):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=match):
        check_output(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_check_leaves_nothing_behind(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    for name in ("new.txt", "a/b/c.txt", "old.txt"):
        check_output(tmp_path / name, [tmp_path / "input.txt"])
    assert os.listdir(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


def test_many_processes_may_check_one_output(tmp_path):
    """As those of torchrun do when they begin."""
    with ThreadPoolExecutor(8) as pool:
        for path in [tmp_path / f"{index}" / "out" / "results.json" for index in range(50)]:
            list(pool.map(check_output, [path] * 8))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc: it has no place for files")
def test_a_place_that_takes_no_file_is_named():
    with pytest.raises(OSError, match="/proc/a/b cannot be written: "):
        check_output("/proc/a/b")


def test_a_tilde_is_the_home_folder_unless_a_file_is_named_so(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    assert str(user_path("~/a.mp4")) == str(home / "a.mp4")
    assert str(user_path("~nobody-here/a.mp4")) == "~nobody-here/a.mp4"
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "a.mp4").touch()
    assert str(user_path("~/a.mp4")) == "~/a.mp4"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_mark_is_no_part_of_the_text(tmp_path, encoding):
    text = ("\ufeff" if encoding == "utf-16-be" else "") + "1,2\r\nü"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "a.txt") == "1,2\r\nü"


def test_bytes_that_are_no_text_are_replaced(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"1\xff2")
    assert read_text(tmp_path / "a.txt") == "1\ufffd2"
