"""Laws of whole-or-not-at-all writing and of paths that stay inside."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.files import atomic_path, clean_stale, read_json, resolve_inside, sha256_file, write_json


def test_a_finished_write_leaves_exactly_the_file(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("done")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "done"


def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="midway"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("midway")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    for content in ("first", "second"):
        with atomic_path(tmp_path / "d") as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["second"]


def test_an_error_in_a_directory_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="x"), atomic_path(tmp_path / "d") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("half")
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


def test_writing_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing was written"), atomic_path(tmp_path / "a"):
        pass


def test_a_killed_writer_never_leaves_a_half_file_under_the_final_name(tmp_path):
    target = tmp_path / "a.bin"
    script = (
        "import sys, time, pathlib\nfrom ecavatar.storage.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as t:\n"
        "    f = t.open('wb'); f.write(b'x' * 1000); f.flush(); print('half', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()
    assert len(clean_stale(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_clean_stale_keeps_only_what_is_named(tmp_path):
    for name in ("keep", "old", ".hidden"):
        (tmp_path / name).write_text("")
    assert clean_stale(tmp_path) == []
    assert clean_stale(tmp_path, keep=["keep"]) == [".hidden", "old"]
    assert [p.name for p in tmp_path.iterdir()] == ["keep"]


def test_json_is_canonical_and_round_trips(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None], "a": "ä"})
    time.sleep(0.01)
    write_json(tmp_path / "b.json", {"a": "ä", "b": [1, 2.5, None]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")
    assert read_json(tmp_path / "a.json") == {"a": "ä", "b": [1, 2.5, None]}


def test_json_refuses_what_json_cannot_say(tmp_path):
    with pytest.raises(DataError, match="NaN"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_reading_json_says_what_is_wrong(tmp_path):
    with pytest.raises(AssetMissingError, match="not found"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json is not valid json"):
        read_json(tmp_path / "bad.json")


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("hostile", ["../x", "a/../../x", "/etc/passwd", "", "a\0b", "..\\x", "a/.."])
def test_paths_that_could_leave_the_root_are_refused(tmp_path, hostile):
    with pytest.raises(DataError):
        resolve_inside(tmp_path, hostile)


def test_a_link_out_of_the_root_is_refused(tmp_path):
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="link"):
        resolve_inside(tmp_path / "root", "link")


@given(st.text())
def test_whatever_is_accepted_lies_inside(tmp_path_factory, text):
    root = tmp_path_factory.getbasetemp()
    try:
        path = resolve_inside(root, text)
    except DataError:
        return
    assert path.resolve().is_relative_to(root.resolve())
    json.dumps(str(path))


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    refused = pytest.raises(DataError, match=r"one/picture\.png")
    with refused if sys.version_info < (3, 13) else contextlib.nullcontext():  # then it resolves to itself
        assert not resolve_inside(tmp_path, "one/picture.png").exists()
