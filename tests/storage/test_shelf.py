"""Laws of the place where releases lie: whole or not at all, never overwritten, the same for folders and URLs."""

import itertools

import fsspec
import pytest

from ecavatar.emolib.compare import compare
from ecavatar.emolib.verify import verify
from ecavatar.errors import AssetMissingError, ConfigError, DataError
from ecavatar.storage.files import read_json
from ecavatar.storage.release import Previous, assemble_release
from ecavatar.storage.shelf import ShelfError, open_shelf, upload_files
from ecavatar.storage.version import Version
from tests.fabricate_emolib import LEAN, fabricated_faces, write_release

_counter = itertools.count()
COMPARED = ("meta/", "data/coefficients/")


@pytest.fixture
def built(tmp_path, small_face):
    return write_release(tmp_path / "built", small_face, fabricated_faces(small_face, 24))


@pytest.fixture(params=["folder", "memory"])
def address(request, tmp_path):
    """A place that nothing else uses."""
    return str(tmp_path / "shelf") if request.param == "folder" else f"memory://shelf{next(_counter)}/emolib"


def assembled(built, out, **how):
    return assemble_release(built, out, name="emolib", compare=compare, **how)


def version(text):
    return Version.parse(text)


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_what_is_put_is_what_is_there(tmp_path, built, address):
    shelf = open_shelf(address)
    assert shelf.versions("emolib") == []
    shelf.put(built, "emolib-1.0.0")
    shelf.put(built, "emolib-1.10.0")
    shelf.put(built, "emolib-1.9.0")
    assert shelf.versions("emolib") == [version("1.0.0"), version("1.9.0"), version("1.10.0")]
    assert open_shelf(address).holds("emolib-1.0.0")
    assert not shelf.holds("emolib-2.0.0")
    system, root = fsspec.core.url_to_fs(address)
    for name, content in contents(built).items():
        assert system.cat_file(f"{root}/emolib-1.0.0/{name}") == content
    assert len(system.find(f"{root}/emolib-1.0.0")) == len(contents(built))


def test_a_release_is_never_overwritten(built, address):
    shelf = open_shelf(address)
    shelf.put(built, "emolib-1.0.0")
    with pytest.raises(DataError, match="never overwritten"):
        shelf.put(built, "emolib-1.0.0")


def test_fetch_gets_what_comparing_needs(tmp_path, built, address):
    shelf = open_shelf(address)
    shelf.put(built, "emolib-1.0.0")
    shelf.fetch("emolib-1.0.0", COMPARED, tmp_path / "out")
    wanted = {n: c for n, c in contents(built).items() if n.startswith(COMPARED)}
    assert contents(tmp_path / "out") == wanted
    with pytest.raises(AssetMissingError, match=r"emolib-3\.0\.0"):
        shelf.fetch("emolib-3.0.0", COMPARED, tmp_path / "none")


def test_other_folders_are_no_releases(tmp_path, built):
    shelf = open_shelf(str(tmp_path / "shelf"))
    shelf.put(built, "emolib-1.0.0")
    for name in ("emolib-latest", "emolib-2.0.0", "vocateeth-3.0.0"):
        (tmp_path / "shelf" / name).mkdir()
    assert shelf.versions("emolib") == [version("1.0.0")]
    with pytest.raises(DataError, match="already"):  # somebody's folder of that name is left alone
        shelf.put(built, "emolib-2.0.0")


@pytest.mark.parametrize("fails_at", [0, 3, "manifest"])
def test_a_failed_upload_leaves_no_release_and_can_be_repeated(built, fails_at):
    shelf = open_shelf(f"memory://failing{next(_counter)}")
    done = itertools.count()

    def upload(uploads):
        for source, address in uploads:
            if source.name == "MANIFEST.json" if fails_at == "manifest" else next(done) == fails_at:
                raise OSError("the line is down")
            upload_files([(source, address)])

    with pytest.raises(ShelfError, match="nothing there counts as a release"):
        shelf.put(built, "emolib-1.0.0", upload)
    assert shelf.versions("emolib") == []
    system, root = fsspec.core.url_to_fs(shelf.address)
    system.makedirs(f"{root}/emolib-1.0.0/data", exist_ok=True)
    system.pipe_file(f"{root}/emolib-1.0.0/data/left_over.parquet", b"half")
    shelf.put(built, "emolib-1.0.0")
    assert shelf.versions("emolib") == [version("1.0.0")]
    assert not system.exists(f"{root}/emolib-1.0.0/data/left_over.parquet")


def test_the_manifest_arrives_last_and_only_after_every_size_was_right(built):
    shelf, order = open_shelf(f"memory://order{next(_counter)}"), []

    def upload(uploads):
        order.extend(source.name for source, _ in uploads)
        upload_files(uploads)

    shelf.put(built, "emolib-1.0.0", upload)
    assert order.count("MANIFEST.json") == 1
    assert order[-1] == "MANIFEST.json"

    def truncating(uploads):
        upload_files(uploads)
        system, path = fsspec.core.url_to_fs(uploads[0][1])
        system.pipe_file(path, b"x")

    with pytest.raises(ShelfError, match="arrived with 1 of"):
        shelf.put(built, "emolib-1.1.0", truncating)
    assert not shelf.holds("emolib-1.1.0")


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, built, monkeypatch):
    shelf = open_shelf(str(tmp_path / "shelf"))
    shelf.put(built, "emolib-1.0.0")
    before = contents(tmp_path / "shelf")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ecavatar.storage.shelf.shutil.copyfile", full)
    with pytest.raises(ShelfError, match="No space left"):
        shelf.put(built, "emolib-1.1.0")
    assert contents(tmp_path / "shelf") == before
    assert [path.name for path in (tmp_path / "shelf").iterdir()] == ["emolib-1.0.0"]


def test_unknown_protocols_are_told():
    with pytest.raises(ConfigError, match="nonsense"):
        open_shelf("nonsense://place")


# --- what is put there ------------------------------------------------------------------------------------------------


def test_an_assembled_release_verifies_and_says_where_it_comes_from(tmp_path, built):
    out = tmp_path / "emolib-1.0.0"
    changes = assembled(built, out, version=version("1.0.0"), origin={"git_commit": "abc"}, previous=None)
    assert changes is None
    assert verify(out) == []
    assert set(contents(out)) == set(contents(built)) | {"release.json", "CHANGES.md", "changes.json"}
    listed = {entry["path"] for entry in read_json(out / "MANIFEST.json")["files"]}
    assert listed == set(contents(out)) - {"MANIFEST.json"}
    assert read_json(out / "release.json") == {
        "git_commit": "abc", "name": "emolib", "version": "1.0.0", "previous": None
    }  # fmt: skip
    assert read_json(out / "MANIFEST.json")["version"] == "1.0.0"
    again = tmp_path / "again"
    assembled(built, again, version=version("1.0.0"), origin={"git_commit": "abc"}, previous=None)
    assert contents(again) == contents(out)
    (out / "release.json").write_text("{}")
    assert any("release.json" in problem for problem in verify(out))


def test_a_later_release_tells_what_it_changes(tmp_path, small_face, built):
    more = write_release(tmp_path / "more", small_face, fabricated_faces(small_face, 30))
    out, before = tmp_path / "out", Previous(version=version("1.0.0"), directory=built)
    changes = assembled(more, out, version=version("1.1.0"), origin={}, previous=before)
    assert changes is not None
    assert len(changes.items.added) == 6
    assert verify(out) == []
    assert "# Changes from 1.0.0 to 1.1.0" in (out / "CHANGES.md").read_text()
    assert read_json(out / "changes.json")["changes"]["items"]["added"] == list(changes.items.added)
    assert read_json(out / "release.json")["previous"] == "1.0.0"


def test_what_does_not_fit_the_release_before_needs_a_major_version(tmp_path, small_face, built):
    settings = LEAN.model_copy(update={"vertices": "float32"})
    meshes = write_release(tmp_path / "meshes", small_face, fabricated_faces(small_face, 24), settings)
    before = Previous(version=version("1.4.0"), directory=meshes)
    with pytest.raises(ConfigError, match=r"vertices_m is gone[\s\S]*Call it 2\.0\.0"):
        assembled(built, tmp_path / "out", version=version("1.5.0"), origin={}, previous=before)
    assert not (tmp_path / "out").exists()
    assembled(built, tmp_path / "out", version=version("2.0.0"), origin={}, previous=before)
    assert "Not compatible" in (tmp_path / "out" / "CHANGES.md").read_text()
