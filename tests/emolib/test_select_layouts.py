"""A selection from annotations alone is the same from every layout of AffectNet."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecavatar.config import SelectSettings
from ecavatar.corpora.affectnet import IMAGE_FOLDERS, read_annotations
from ecavatar.emolib.draw import LIST_SCHEMA
from ecavatar.emolib.selection import select, select_folder

SETTINGS = SelectSettings(per_level=3, levels="equal", near_duplicate_bits=0, pool=10, max_rejects=0)
ITEMS = [(n, n % 11, -2.0 if n % 11 > 7 else (n * 37 % 201 - 100) / 100) for n in range(440)]
"""Number, expression and arousal."""


def _write_lists(root):
    rows = [f"1/{n}.jpg,{n},0,5,5,NULL,{code},0,{arousal}" for n, code, arousal in ITEMS]
    (root / "training.csv").write_text("\n".join(rows) + "\n")
    return f"{IMAGE_FOLDERS[0]}/1/"


def _write_npy(root):
    (root / "train_set/annotations").mkdir(parents=True)
    for n, code, arousal in ITEMS:
        for kind, value in (("exp", code), ("val", 0), ("aro", arousal)):
            np.save(root / f"train_set/annotations/{n}_{kind}.npy", np.array(str(value)))
    return "train_set/images/"


def _write_json(root):
    folder = root / "AffectNet+/human_annotated/train_set/annotations"
    folder.mkdir(parents=True)
    for n, code, arousal in ITEMS:
        value = {"human-label": code, "meta-data": {"valence": 0, "arousal": arousal}}
        (folder / f"{n}.json").write_text(json.dumps(value))
    return "AffectNet+/human_annotated/train_set/images/"


@pytest.mark.parametrize("write", [_write_lists, _write_npy, _write_json])
def test_annotations_alone_give_a_list_of_images(tmp_path, write):
    prefix = write(tmp_path)
    select_folder(tmp_path, tmp_path / "out/index.parquet", SETTINGS, 0, annotations_only=True)
    index = pq.read_table(tmp_path / "out/index.parquet")
    assert index.schema.equals(LIST_SCHEMA)
    assert len(index) == 8 * 3 * 3
    arousal = {n: value for n, _, value in ITEMS}
    for row in index.to_pylist():
        number = int(row["path"].removeprefix(prefix).removesuffix(".jpg"))
        assert row["path"] == f"{prefix}{number}.jpg"
        assert row["arousal"] == arousal[number]
        assert row["face_x_px"] == (number if write is _write_lists else None)
        assert row["split"] == "train"


def test_labels_and_the_larger_table_give_the_same_selection(tmp_path):
    _write_lists(tmp_path)
    read = read_annotations(tmp_path, need_images=False)
    from_labels, from_table = (select(frame, tmp_path, SETTINGS, 0, None) for frame in (read.labels, read.table))
    assert from_labels.index.equals(from_table.index)
    assert from_labels.pool.equals(from_table.pool)
    assert from_labels.fingerprint == from_table.fingerprint
