"""Laws of retrieval: batch and single agree, what is missing is refused or replaced, faces are read safely."""

import json
import time

import numpy as np
import pyarrow as pa
import pytest

from ecavatar.emolib.retrieval import EmolibIndex, face_shape
from ecavatar.emotion import LEVELS, Emotion, LabelPair
from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.storage.parquet import vector_column
from tests.emolib.conftest import invented_faces

SHAPE = np.array([0.5, -1.25, 2.0])


@pytest.fixture(scope="module")
def library(write, tmp_path_factory) -> EmolibIndex:
    """Two hundred faces, none of contempt, none of fear at level 1."""
    directory = tmp_path_factory.mktemp("retrieval") / "emolib"
    write(directory, invented_faces(200, seed=4))
    return EmolibIndex.open(directory)


def test_batch_is_the_single_search_repeated(library):
    rng = np.random.default_rng(1)
    pairs = [list(library.counts())[k] for k in rng.integers(0, len(library.counts()), 60)]
    shapes = rng.normal(size=(60, 6))
    together = library.nearest_many(shapes, pairs)
    for shape, pair, item in zip(shapes, pairs, together, strict=True):
        alone = library.nearest(shape, pair)
        assert (alone.item_id, alone.shape_distance) == (item.item_id, item.shape_distance)
        assert (item.asked, item.label, item.is_substituted) == (pair, pair, False)


def test_nearest_is_nearest_in_float64(library):
    rng = np.random.default_rng(2)
    for pair in library.counts():
        shape = rng.normal(size=6)
        item = library.nearest(shape, pair)
        rows = (library.emotions == pair.emotion) & (library.levels == pair.level)
        distances = np.sqrt(((library.shapes[rows] - shape) ** 2).sum(axis=1))
        assert item.shape_distance == pytest.approx(distances.min(), rel=1e-14)
        assert item.item_id == library.table["item_id"].to_numpy(zero_copy_only=False)[rows][distances.argmin()]


def test_of_equally_near_items_the_first_by_item_id_wins(write, tmp_path):
    faces = invented_faces(30)
    twins = faces.set_column(
        faces.column_names.index("shape"), "shape", vector_column(np.ones((30, 6), np.float32))
    ).take(pa.array(np.random.default_rng(0).permutation(30)))
    write(tmp_path / "emolib", twins)
    library = EmolibIndex.open(tmp_path / "emolib")
    for pair in library.counts():
        rows = (library.emotions == pair.emotion) & (library.levels == pair.level)
        names = library.table["item_id"].to_numpy(zero_copy_only=False)[rows]
        items = library.nearest_many(np.zeros((3, 6)), [pair] * 3)
        assert {item.item_id for item in items} == {min(names)}


def test_a_missing_level_is_refused_or_replaced_by_the_nearest_and_told(library):
    wanted, there = LabelPair(Emotion.FEAR, 1), LabelPair(Emotion.FEAR, 2)
    with pytest.raises(DataError, match="fear level 1; its levels are: 2, 3"):
        library.nearest_many(np.zeros((2, 6)), [there, wanted])
    items = library.nearest_many(np.zeros((2, 6)), [there, wanted], when_empty="nearest_level")
    assert items[0].item_id == items[1].item_id
    assert [item.is_substituted for item in items] == [False, True]
    assert (items[1].asked, items[1].label) == (wanted, there)


def test_of_two_equally_near_levels_the_lower_is_taken(write, tmp_path):
    faces = invented_faces(40)
    is_wanted = [
        not (e == "happy" and level == 2)
        for e, level in zip(*(faces[c].to_pylist() for c in ("emotion", "level")), strict=True)
    ]
    write(tmp_path / "emolib", faces.filter(pa.array(is_wanted)))
    library = EmolibIndex.open(tmp_path / "emolib")
    assert {LabelPair(Emotion.HAPPY, 1), LabelPair(Emotion.HAPPY, 3)} <= set(library.counts())
    item = library.nearest(np.zeros(6), LabelPair(Emotion.HAPPY, 2), when_empty="nearest_level")
    assert item.label == LabelPair(Emotion.HAPPY, 1)


@pytest.mark.parametrize("when_empty", ["refuse", "nearest_level"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_missing_category_is_always_refused(library, when_empty, level):
    with pytest.raises(DataError, match=r"contempt.*its categories are: neutral, happy"):
        library.nearest(np.zeros(6), LabelPair(Emotion.CONTEMPT, level), when_empty=when_empty)


def test_faces_that_cannot_be_compared_are_refused(library):
    pair = next(iter(library.counts()))
    with pytest.raises(ShapeError, match="6 shape coefficients"):
        library.nearest_many(np.zeros((2, 5)), [pair] * 2)
    with pytest.raises(ShapeError, match="1 for 2 faces"):
        library.nearest_many(np.zeros((2, 6)), [pair])
    with pytest.raises(DataError, match="face 1"):
        library.nearest_many(np.array([np.zeros(6), np.full(6, np.nan)]), [pair] * 2)
    assert library.nearest_many(np.zeros((0, 6)), []) == []


def test_a_thousand_faces_are_found_in_seconds_among_all_of_table_1(library):
    rng, items = np.random.default_rng(3), 10_736
    emotions, levels = rng.integers(0, 8, items), rng.integers(1, 4, items)
    everything = EmolibIndex(
        info=library.info,
        table=library.table.take(pa.array(np.arange(items) % len(library.table))),
        shapes=rng.normal(size=(items, 6)),
        emotions=emotions,
        levels=levels,
    )
    pairs = [LabelPair(Emotion(int(e)), int(k)) for e, k in zip(emotions[:1000], levels[:1000], strict=True)]
    start = time.perf_counter()
    found = everything.nearest_many(everything.shapes[:1000], pairs)
    assert time.perf_counter() - start < 5
    assert all(item.shape_distance == 0 for item in found)


@pytest.mark.parametrize("kind", ["folder", "json", "npz", "npz without basis", "npy", "npy of one row"])
def test_a_faces_shape_is_read_from_every_kind_of_file(tmp_path, kind):
    basis = None if kind.startswith("npy") or "without" in kind else "flame2020"
    match kind:
        case "folder" | "json":
            path = tmp_path / "coefficients.json"
            path.write_text(json.dumps({"shape": SHAPE.tolist(), "basis": basis, "topology": "flame"}))
            path = tmp_path if kind == "folder" else path
        case "npz":
            np.savez(path := tmp_path / "face.npz", shape=SHAPE, basis=np.array(basis), expression=SHAPE)
        case "npz without basis":
            np.savez(path := tmp_path / "face.npz", shape=SHAPE)
        case _:
            np.save(path := tmp_path / "face.npy", SHAPE if kind == "npy" else SHAPE[None].astype(np.float32))
    shape, found_basis = face_shape(path)
    np.testing.assert_array_equal(shape, SHAPE)
    assert (shape.dtype, found_basis) == (np.float64, basis)


def test_files_that_hold_no_face_are_refused(tmp_path):
    def written(name, content) -> object:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith("json"):
            path.write_text(json.dumps(content))
        elif name.endswith("npz"):
            np.savez(path, **content)
        else:
            np.save(path, content, allow_pickle=True)
        return path

    for path, message in (
        (written("a.json", {"expression": [1.0]}), "no `shape`"),
        (written("b.json", [1.0]), "no `shape`"),
        (written("c.json", {"shape": ["left", "right"]}), "finite numbers"),
        (written("d.json", {"shape": [1.0, None]}), "finite numbers"),
        (written("e.json", {"shape": [[1.0], [2.0, 3.0]]}), "finite numbers"),
        (written("f.json", b"{"), "not valid json"),
        (written("g.npz", {"exp": SHAPE}), "it has exp"),
        (written("h.npz", b"PK no zip"), "not a readable npz"),
        (written("i.npz", {"shape": np.array([{}])}), "not a readable npz"),
        (written("j.npy", np.array([{}])), "not a readable npy"),
        (written("k.npy", b""), "not a readable npy"),
        (written("l.npy", np.eye(3)), "a vector"),
        (written("m.npy", np.zeros(0)), "a vector"),
        (written("n.npy", np.array([1.0, np.inf])), "finite numbers"),
        (written("o.ply", b"ply"), r"\.json, \.npz, \.npy"),
    ):
        with pytest.raises(DataError, match=message):
            face_shape(path)
    np.savez_compressed(damaged := tmp_path / "p.npz", shape=np.zeros(4096))
    content = bytearray(damaged.read_bytes())
    content[45:60] = b"\xff" * 15
    damaged.write_bytes(content)
    with pytest.raises(DataError, match="not a readable npz"):
        face_shape(damaged)
    for absent in (tmp_path, tmp_path / "nowhere.json"):
        with pytest.raises(AssetMissingError, match="ecavatar face"):
            face_shape(absent)
