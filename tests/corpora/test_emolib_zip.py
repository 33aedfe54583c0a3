"""Laws of reading the authors' Emolib: many layouts give one result, nothing in the zip is trusted."""

import hashlib
import io
import json
import stat
import zipfile

import numpy as np
import pytest

from ecavatar.corpora import emolib_zip
from ecavatar.corpora.emolib_zip import AuthorsEmolib, check_download, read_items
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.rejects import Reject

OBJ = b"v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\nf 1 2 3\n"
SIZES = {"n_shape": 6, "n_expression": 4}


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), **options)
    return buffer.getvalue()


def coefficients(seed):
    generator = np.random.default_rng(seed)
    return {
        "shape": generator.normal(size=6).astype(np.float32),
        "exp": generator.normal(size=4).astype(np.float32),
        "jaw": generator.normal(size=3).astype(np.float32),
    }


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def item_files(folder, seed=0, **changed):
    """Content by name of a complete item in a folder of its own; None removes a file."""
    values = coefficients(seed)
    files = {f"{name}.npy": npy(value) for name, value in values.items()} | {"mesh.obj": OBJ, "inputs.png": b"picture"}
    files |= {name.replace("_npy", ".npy").replace("_obj", ".obj"): value for name, value in changed.items()}
    return {f"{folder}/{name}": content for name, content in files.items() if content is not None}


def found(path):
    with AuthorsEmolib(path) as library:
        results = list(library.items())
    items = [item for item in results if not isinstance(item, Reject)]
    return items, {reject.item_id: reject.reason for reject in results if isinstance(reject, Reject)}


LAYOUTS = {
    "a folder per item": "{emotion}/level{level}/0001/{kind}.{suffix}",
    "below a root": "emolib_release/{emotion}/{level}/0001/{kind}.{suffix}",
    "category and level in one name": "{emotion}_{level}/0001/{kind}.{suffix}",
    "everything in the item's name": "items/{emotion}_{level}_0001/{kind}.{suffix}",
    "level first": "L{level}/{emotion}/0001/{kind}.{suffix}",
    "flat, kind last": "{emotion}/level{level}/0001_{kind}.{suffix}",
    "flat, kind first": "{emotion}/level{level}/{kind}_0001.{suffix}",
    "a folder per kind below": "{emotion}/level{level}/{kind}/0001.{suffix}",
    "a folder per kind above": "{kind}/{emotion}/level{level}/0001.{suffix}",
    "a folder of parameters in each item's": "{emotion}/level{level}/0001/params/{kind}.{suffix}",
    "numbers in the folder and in the names": "{emotion}/level{level}/0001/0001_{kind}.{suffix}",
    "backslashes": "{emotion}\\level{level}\\0001\\{kind}.{suffix}",
}
NAMES = [
    {"shape": "shape", "exp": "exp", "jaw": "jaw", "mesh": "mesh", "image": "image"},
    {"shape": "shapecode", "exp": "expression", "jaw": "jawpose", "mesh": "mesh", "image": "image"},
    {"shape": "Shape", "exp": "EXP", "jaw": "jaw_pose", "mesh": "mesh", "image": "image"},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize(
    ("spelling", "emotion"), [("Happy", Emotion.HAPPY), ("surprised", Emotion.SURPRISE), ("anger", Emotion.ANGER)]
)
def test_every_layout_gives_the_same_item(tmp_path, layout, names, spelling, emotion):
    if "per kind" in layout and "jaw_pose" in names.values():
        names = NAMES[0]  # a folder has one plain name
    contents = {kind: npy(value) for kind, value in coefficients(3).items()} | {"mesh": OBJ, "image": b"picture"}
    files = {}
    for kind, content in contents.items():
        suffix = {"mesh": "obj", "image": "jpg"}.get(kind, "npy")
        name = LAYOUTS[layout].format(emotion=spelling, level=2, kind=names[kind], suffix=suffix)
        files[name] = content
    path = write_zip(tmp_path / "authors.zip", files)
    with AuthorsEmolib(path) as library:
        (item,) = library.items()
        assert item.label == LabelPair(emotion, 2)
        for name, value in zip(("shape", "expression", "jaw_pose"), coefficients(3).values(), strict=True):
            np.testing.assert_array_equal(getattr(item, name), value)
        vertices, faces = library.mesh(item)
        np.testing.assert_allclose(vertices, [[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], atol=1e-7)
        assert faces.tolist() == [[0, 1, 2]]
        assert library.image_bytes(item) == b"picture"


def test_a_zip_and_its_unpacked_folder_give_the_same_table(tmp_path):
    files = {}
    for seed, folder in enumerate(["Sad/level1/7", "Sad/level3/7", "contempt/level2/b"]):
        files |= item_files(folder, seed)
    packed = write_zip(tmp_path / "authors.zip", files)
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
    one, other = read_items(packed, **SIZES), read_items(tmp_path / "unpacked", **SIZES)
    assert one.table.equals(other.table) or str(one.table.to_pylist()) == str(other.table.to_pylist())  # NaN != NaN
    assert one.table["item_id"].to_pylist() == ["Sad/level1/7", "Sad/level3/7", "contempt/level2/b"]
    assert one.table["emotion"].to_pylist() == ["sad", "sad", "contempt"]
    assert one.table["level"].to_pylist() == [1, 3, 2]
    assert np.isnan(one.table["arousal"].to_numpy()).all()
    assert one.rejects == other.rejects == []


def test_the_files_of_emicas_demo_are_told_apart(tmp_path):
    """Its other arrays and its rendering are neither coefficients nor the photograph."""
    extra = {name: npy(np.full(50, 9.0)) for name in ("tex.npy", "globalpose.npy", "cam.npy", "lightcode.npy")}
    files = item_files("disgust/level3/img00", 1, jaw_npy=None)
    files |= {f"disgust/level3/img00/{name}": content for name, content in extra.items()}
    files |= {"disgust/level3/img00/jawpose.npy": npy(coefficients(1)["jaw"][None])}
    files |= {"disgust/level3/img00/geometry.png": b"rendering"}
    (item,), rejects = found(write_zip(tmp_path / "demo.zip", files))
    assert rejects == {}
    np.testing.assert_array_equal(item.jaw_pose, coefficients(1)["jaw"])
    assert item.image_file == "disgust/level3/img00/inputs.png"


def test_a_pose_of_six_numbers_ends_with_the_jaw(tmp_path):
    pose = np.arange(6, dtype=np.float32)
    files = item_files("fear/level1/0", jaw_npy=None) | {"fear/level1/0/pose.npy": npy(pose)}
    (item,), _ = found(write_zip(tmp_path / "z.zip", files))
    assert item.jaw_pose.tolist() == [3, 4, 5]


def test_missing_parts_are_no_reason_to_drop_what_is_there(tmp_path):
    files = item_files("happy/level1/all")
    files |= item_files("happy/level1/no_mesh", 1, mesh_obj=None)
    files |= item_files("happy/level1/only_mesh", 2, shape_npy=None, exp_npy=None, jaw_npy=None)
    files |= item_files("happy/level1/no_jaw", 3, jaw_npy=None, mesh_obj=None)
    files |= {"happy/level1/only_picture/image.png": b"picture"}
    path = write_zip(tmp_path / "z.zip", files)
    items, rejects = found(path)
    assert [item.item_id.split("/")[-1] for item in items] == ["all", "no_mesh", "only_mesh"]
    assert items[1].mesh_file is None
    assert items[2].shape is None
    assert rejects == {"happy/level1/no_jaw": "missing_parts", "happy/level1/only_picture/image": "missing_parts"}
    with AuthorsEmolib(path) as library, pytest.raises(AssetMissingError, match="has no mesh"):
        library.mesh(items[1])
    imported = read_items(path, **SIZES)
    assert imported.table["item_id"].to_pylist() == ["happy/level1/all", "happy/level1/no_mesh"]
    assert sorted(reject.reason for reject in imported.rejects) == ["missing_parts", "missing_parts", "no_coefficients"]


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("level1/0001", "no_emotion"),
        ("happy/sad/level1/0001", "two_emotions"),
        ("happy/0001", "no_level"),
        ("happy/2", "no_level"),  # item 2, not level 2
        ("happy/level4/0001", "bad_level"),
        ("happy/level1/level2/0001", "bad_level"),
    ],
)
def test_a_path_without_one_label_pair_is_a_counted_reject(tmp_path, folder, reason):
    files = item_files(folder) | item_files("anger/level1/good")
    items, rejects = found(write_zip(tmp_path / "z.zip", files))
    assert [item.item_id for item in items] == ["anger/level1/good"]
    assert rejects == {folder: reason}


def test_a_label_file_says_what_paths_cannot_and_must_not_contradict_them(tmp_path):
    label = {"item_id": "x1", "source_id": "1/a.jpg", "emotion": "fear", "level": 3, "valence": -0.5, "arousal": 0.25}
    files = item_files("any/where") | {"any/where/label.json": json.dumps(label)}
    files |= item_files("happy/level3/1", 1) | {"happy/level3/1/label.json": json.dumps(label)}
    files |= item_files("any/broken", 2) | {"any/broken/label.json": "{"}
    (item,), rejects = found(write_zip(tmp_path / "z.zip", files))
    assert (item.item_id, item.source_id, item.label) == ("x1", "1/a.jpg", LabelPair(Emotion.FEAR, 3))
    assert (item.valence, item.arousal) == (-0.5, 0.25)
    assert rejects == {"happy/level3/1": "two_labels", "any/broken": "bad_label"}


def huge_header():
    """An .npy that claims 10^15 numbers and holds none."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "bad_array"),
        (b"not an array", "bad_array"),
        (npy(coefficients(0)["shape"])[:-3], "bad_array"),
        (npy(np.array([{}, {}], dtype=object), allow_pickle=True), "bad_array"),
        (npy(np.zeros((2, 3))), "bad_array"),
        (npy(np.array([1.0, np.nan])), "bad_array"),
        (npy(np.array([1e300])), "bad_array"),
        (npy(np.array(["a", "b"])), "bad_array"),
        (huge_header(), "bad_array"),
        (npy(np.zeros(1 << 18, np.float64)), "damaged_file"),  # larger than any coefficients
    ],
)
def test_a_damaged_or_hostile_array_rejects_its_item_alone(tmp_path, content, reason):
    files = item_files("sad/level1/bad", shape_npy=content) | item_files("sad/level1/good")
    items, rejects = found(write_zip(tmp_path / "z.zip", files))
    assert [item.item_id for item in items] == ["sad/level1/good"]
    assert rejects == {"sad/level1/bad": reason}


def test_paths_out_of_the_zip_links_and_doubles_are_rejects(tmp_path):
    path = write_zip(tmp_path / "z.zip", item_files("sad/level1/good"))
    link = zipfile.ZipInfo("sad/level1/link/shape.npy")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../../sad/level1/x/shape.npy", "/sad/level1/y/shape.npy", "C:\\sad\\level1\\z\\shape.npy"):
            archive.writestr(name, npy(np.zeros(6)))
        archive.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("sad/level1/good/shape.npy", npy(np.full(6, 7.0)))
    before = set(tmp_path.rglob("*"))
    items, rejects = found(path)
    assert set(tmp_path.rglob("*")) == before
    assert [item.item_id for item in items] == ["sad/level1/good"]
    np.testing.assert_array_equal(items[0].shape, coefficients(0)["shape"])  # the first of the two
    assert set(rejects.values()) == {"bad_path"}
    assert len(rejects) == 5


def test_links_in_a_folder_are_not_followed(tmp_path):
    secret = tmp_path / "secret.npy"
    secret.write_bytes(npy(np.ones(6)))
    for name, content in item_files("library/sad/level1/good").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "library" / "sad" / "level1"
    (folder / "linked").symlink_to(outside)
    (folder / "good" / "expression.npy").symlink_to(secret)
    items, rejects = found(tmp_path / "library")
    assert len(items) == 1
    np.testing.assert_array_equal(items[0].expression, coefficients(0)["exp"])
    assert rejects == {"sad/level1/linked": "bad_path", "sad/level1/good/expression.npy": "bad_path"}


def test_a_bomb_is_read_no_further_than_its_limit(tmp_path):
    """64 KB in the zip that would unpack to 64 MB of zeros."""
    files = item_files("sad/level1/bomb", exp_npy=bytes(1 << 26)) | item_files("sad/level1/good")
    path = write_zip(tmp_path / "z.zip", files)
    assert path.stat().st_size < 1 << 20
    items, rejects = found(path)
    assert rejects == {"sad/level1/bomb": "damaged_file"}
    assert len(items) == 1


def test_a_member_with_a_wrong_checksum_rejects_its_item(tmp_path):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:  # stored, so that its bytes can be found
        for name, content in (item_files("sad/level1/bad", 5) | item_files("sad/level1/good")).items():
            archive.writestr(name, content)
    content, wanted = path.read_bytes(), coefficients(5)["shape"].tobytes()
    assert content.count(wanted) == 1
    path.write_bytes(content.replace(wanted, bytes(len(wanted))))
    items, rejects = found(path)
    assert rejects == {"sad/level1/bad": "damaged_file"}
    assert len(items) == 1


def test_the_pointer_is_recognised_and_says_what_to_expect(tmp_path):
    path = tmp_path / "emolib_release.zip"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{emolib_zip.PUBLISHED_SHA256}\nsize {emolib_zip.PUBLISHED_BYTES}\n"
    )
    with pytest.raises(DataError, match=r"git-LFS pointer of 135 bytes.*1820439063.*39aa3eeb.*git lfs pull"):
        AuthorsEmolib(path)


def test_the_published_checksum_is_checked_where_the_size_is_the_published(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "z.zip", item_files("sad/level1/good"))
    assert not check_download(path)
    monkeypatch.setattr(emolib_zip, "PUBLISHED_BYTES", path.stat().st_size)
    with pytest.raises(DataError, match="Download it again"):
        AuthorsEmolib(path)
    monkeypatch.setattr(emolib_zip, "PUBLISHED_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    assert check_download(path)
    assert len(found(path)[0]) == 1


def test_what_is_no_emolib_is_refused(tmp_path):
    with pytest.raises(AssetMissingError, match="git-LFS"):
        AuthorsEmolib(tmp_path / "absent.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DataError, match="not a zip"):
        AuthorsEmolib(tmp_path / "text.zip")
    other = write_zip(tmp_path / "other.zip", {"README.md": "hello", "meta/info.json": "{}", "tex.npy": npy([1.0])})
    with pytest.raises(DataError, match="nothing that looks like an item"):
        found(other)
    with pytest.raises(DataError, match="none of its items"):
        read_items(write_zip(tmp_path / "unlabelled.zip", item_files("a/b")), **SIZES)


def test_items_with_other_numbers_of_coefficients_are_rejects(tmp_path):
    files = item_files("sad/level1/good") | item_files("sad/level1/short", shape_npy=npy(np.zeros(5)))
    imported = read_items(write_zip(tmp_path / "z.zip", files), **SIZES)
    assert imported.table["item_id"].to_pylist() == ["sad/level1/good"]
    assert [(reject.item_id, reject.reason) for reject in imported.rejects] == [
        ("sad/level1/short", "other_coefficients")
    ]


def test_two_items_of_one_id_are_one_and_a_reject(tmp_path):
    label = json.dumps({"item_id": "same"})
    files = item_files("sad/level1/a") | {"sad/level1/a/label.json": label}
    files |= item_files("sad/level1/b", 1) | {"sad/level1/b/label.json": label}
    items, rejects = found(write_zip(tmp_path / "z.zip", files))
    assert [item.item_id for item in items] == ["same"]
    assert rejects == {"sad/level1/b": "repeated_item"}


def test_a_neutral_face_is_an_emotion_not_a_kind_of_mesh(tmp_path):
    files = {f"level1/neutral_0001_{kind}.npy": npy(value) for kind, value in coefficients(0).items()}
    (item,), rejects = found(write_zip(tmp_path / "z.zip", files | {"level1/neutral_0001.obj": OBJ}))
    assert item.label == LabelPair(Emotion.NEUTRAL, 1)
    assert item.mesh_file == "level1/neutral_0001.obj"
    assert rejects == {}


def test_a_plain_mesh_belongs_to_the_only_numbered_arrays_beside_it(tmp_path):
    files = {f"sad/level1/7/7_{kind}.npy": npy(value) for kind, value in coefficients(0).items()}
    (item,), rejects = found(write_zip(tmp_path / "z.zip", files | {"sad/level1/7/mesh.obj": OBJ}))
    assert item.mesh_file == "sad/level1/7/mesh.obj"
    assert item.shape is not None
    assert rejects == {}


@pytest.mark.parametrize(
    "label",
    [
        {"emotion": "sad", "level": 2.0},
        {"emotion": "sad", "level": True},
        {"emotion": "sad", "level": [1]},
        {"emotion": ["sad"], "level": 1},
        {"emotion": "bored", "level": 1},
        {"valence": 10**400},
        {"arousal": float("nan")},
        {"arousal": "high"},
        [1, 2],
    ],
)
def test_a_nonsensical_label_file_rejects_its_item(tmp_path, label):
    files = item_files("sad/level1/bad") | {"sad/level1/bad/label.json": json.dumps(label)}
    items, rejects = found(write_zip(tmp_path / "z.zip", files | item_files("sad/level1/good")))
    assert rejects == {"sad/level1/bad": "bad_label"}
    assert len(items) == 1


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_anywhere_is_an_error_of_ours_or_a_reject(tmp_path, compression):
    """Random bytes of the zip overwritten, or its end cut off: nothing else is ever raised."""
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (item_files("sad/level1/a") | item_files("happy/level2/b", 1)).items():
            archive.writestr(name, content)
    whole, generator, outcomes = path.read_bytes(), np.random.default_rng(4), set()
    for k in range(150):
        damaged = bytearray(whole if k % 5 else whole[: generator.integers(1, len(whole))])
        for place in generator.integers(0, len(damaged), 1 + k % 8):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            items, _ = found(path)
            outcomes.add(len(items))
        except DataError:
            outcomes.add("refused")
    assert {"refused", 1, 2} <= outcomes


def test_what_the_system_left_behind_is_no_part(tmp_path):
    files = item_files("sad/level1/good") | {
        "__MACOSX/sad/level1/good/._shape.npy": b"x",
        "sad/level1/good/.DS_Store": b"x",
        "sad/level1/good/._exp.npy": b"x",
    }
    items, rejects = found(write_zip(tmp_path / "z.zip", files))
    assert len(items) == 1
    assert rejects == {}
