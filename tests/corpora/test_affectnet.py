"""AffectNet's layouts as they ship, with what is wrong in them."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecavatar.corpora import affectnet
from ecavatar.corpora.affectnet import corpus_landmarks, image_paths, read_annotations
from ecavatar.corpora.affectnet_layouts.annotations import unsafe_paths
from ecavatar.corpora.affectnet_layouts.items import _npy_array
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.files import resolve_inside
from ecavatar.storage.rejects import write_rejects

POINTS = np.arange(136, dtype=np.float64).reshape(68, 2) + 0.25
LANDMARKS = ";".join(map(str, POINTS.ravel()))
HEADER = ",".join(affectnet.COLUMNS)
GOOD = "1/good.jpg,1,1,5,5,NULL,1,0,0"


def _lists(root: Path, training: list[str], validation: list[str], *, headers=(True, False)) -> Path:
    (root / "Manually_Annotated/Manually_Annotated_Images/1").mkdir(parents=True)
    lists = root / "Manually_Annotated_file_lists"
    lists.mkdir()
    for name, rows, has_header in zip(affectnet.LISTS.values(), (training, validation), headers, strict=True):
        (lists / name).write_text("\n".join([*([HEADER] if has_header or not rows else []), *rows]) + "\n")
    return root


def _automatic(root: Path, rows: list[str]) -> None:
    (root / "Automatically_Annotated/Automatically_Annotated_Images").mkdir(parents=True)
    (root / "Automatically_annotated_file_list").mkdir()
    (root / "Automatically_annotated_file_list/automatically_annotated.csv").write_text(
        "\n".join([HEADER, *rows]) + "\n"
    )


def _mini(root: Path, items: dict[str, dict[str, object]]) -> Path:
    """`items` by "train_set/12": the array of each kind of file."""
    for item, values in items.items():
        part, number = item.split("/")
        folder = root / part / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        for kind, value in values.items():
            np.save(folder / f"{number}_{kind}.npy", np.asarray(value))
    return root


def _plus(root: Path, items: dict[str, object]) -> Path:
    """`items` by "train_set/name": the json value."""
    for item, value in items.items():
        part, name = item.split("/")
        folder = root / part / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(value))
    return root


def _plus_item(label: object, valence: object, arousal: object, landmarks: object = None) -> dict[str, object]:
    facts = {"valence": valence, "arousal": arousal, "age": 30, "landmark-68": landmarks}
    return {"human-label": label, "soft-label": [0.125] * 8, "subset": "easy", "meta-data": facts}


def _reasons(read: affectnet.Annotations) -> list[str]:
    return [reject.reason for reject in read.rejects]


@pytest.mark.parametrize("headers", [(True, False), (False, True), (True, True), (False, False)])
def test_lists_are_read_with_and_without_header(tmp_path, headers):
    training = [f"1/a.JPG,10,20,100,110,{LANDMARKS},1,0.5,-0.25"]
    validation = [f"1/b.png,1,2,3,4,{LANDMARKS},7,-0.5,0.75", f"2/c.bmp,1,2,3,4,{LANDMARKS},0,0,0"]
    read = read_annotations(_lists(tmp_path, training, validation, headers=headers))
    table = read.table
    assert not read.rejects
    assert table["source_id"].tolist() == ["1/a.JPG", "1/b.png", "2/c.bmp"]
    assert table["path"][0] == "Manually_Annotated/Manually_Annotated_Images/1/a.JPG"
    assert table["split"].tolist() == ["train", "val", "val"]
    assert table["emotion_code"].tolist() == [1, 7, 0]
    assert (table["valence"][0], table["arousal"][0]) == (0.5, -0.25)
    assert table.loc[0, ["face_x", "face_y", "face_width", "face_height"]].tolist() == [10, 20, 100, 110]


@pytest.mark.parametrize("text", ["\ufeff{}\n{}\n", "{}\r\n{}\r\n", "{}\n\n{}"])
def test_byte_order_marks_line_ends_and_empty_lines_do_not_matter(tmp_path, text):
    root = _lists(tmp_path, [], [GOOD])
    (root / "Manually_Annotated_file_lists/training.csv").write_bytes(
        text.format(HEADER, "1/a.jpg,1,1,5,5,NULL,3,0,1").encode()
    )
    read = read_annotations(root)
    assert read.table["source_id"].tolist() == ["1/a.jpg", "1/good.jpg"]
    assert not read.rejects


def test_fields_in_quotation_marks_are_read(tmp_path):
    root = _lists(tmp_path, [], ['"1/a.jpg","1","1","5","5","NULL","3","0","1"'])
    assert read_annotations(root).table["emotion_code"].tolist() == [3]


def test_rows_without_landmarks_box_or_annotation_stay_and_say_what_is_missing(tmp_path):
    read = read_annotations(
        _lists(tmp_path, ["1/a.jpg,NULL,NULL,-5,-5,NULL,10,-2,-2"], [f"1/b.jpg,1,1,5,5,{LANDMARKS},2,-1,1"])
    )
    assert not read.rejects
    assert read.table.loc[0, ["valence", "arousal", "face_x", "face_width"]].isna().all()
    assert read.table["emotion_code"][0] == 10


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("/etc/passwd,1,1,5,5,NULL,1,0,0", "bad_path"),
        ("../../x.jpg,1,1,5,5,NULL,1,0,0", "bad_path"),
        ("1/../../x.jpg,1,1,5,5,NULL,1,0,0", "bad_path"),
        ("..\\x.jpg,1,1,5,5,NULL,1,0,0", "bad_path"),
        ("1\\x.jpg,1,1,5,5,NULL,1,0,0", "bad_path"),
        ("C:/x.jpg,1,1,5,5,NULL,1,0,0", "bad_path"),
        ("c:x.jpg,1,1,5,5,NULL,1,0,0", "bad_path"),
        (" ,1,1,5,5,NULL,1,0,0", "bad_path"),
        (",1,1,5,5,NULL,1,0,0", "bad_path"),
        ("1/x.jpg,1,1,5,5,NULL,11,0,0", "bad_expression"),
        ("1/x.jpg,1,1,5,5,NULL,-1,0,0", "bad_expression"),
        ("1/x.jpg,1,1,5,5,NULL,1.5,0,0", "bad_expression"),
        ("1/x.jpg,1,1,5,5,NULL,happy,0,0", "bad_expression"),
        ("1/x.jpg,1,1,5,5,NULL,,0,0", "bad_expression"),
        ("1/x.jpg,1,1,5,5,NULL,1,0,1.5", "bad_arousal"),
        ("1/x.jpg,1,1,5,5,NULL,1,0,nan", "bad_arousal"),
        ("1/x.jpg,1,1,5,5,NULL,1,0,-inf", "bad_arousal"),
        ("1/x.jpg,1,1,5,5,NULL,1,0,much", "bad_arousal"),
        ("1/x.jpg,1,1,5,5,NULL,1,,0", "bad_valence"),
        ("1/x.jpg,1,1,5,5,NULL,1,-3,0", "bad_valence"),
        ("1/good.jpg,1,1,5,5,NULL,1,0,0", "repeated_row"),
        ("1/x.jpg,1,1", "bad_row"),
        ("1/x.jpg,1,1,5,5,NULL,1,0,0,0", "bad_row"),
        ('1/"x.jpg,1,1', "bad_row"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_and_the_others_stay(tmp_path, row, reason):
    read = read_annotations(_lists(tmp_path, [GOOD, row], [GOOD.replace("good", "other")]))
    assert _reasons(read) == [reason]
    assert read.table["source_id"].tolist() == ["1/good.jpg", "1/other.jpg"]


def test_a_list_may_begin_with_a_broken_row(tmp_path):
    read = read_annotations(_lists(tmp_path, [], ["1/x.jpg,1,1", GOOD]))
    assert _reasons(read) == ["bad_row"]
    assert read.table["source_id"].tolist() == ["1/good.jpg"]


def test_a_path_that_is_no_text_is_rejected(tmp_path):
    root = _lists(tmp_path, [GOOD], [GOOD.replace("good", "other")])
    with (root / "Manually_Annotated_file_lists/training.csv").open("ab") as file:
        file.write(b"1/\xff\xfe.jpg,1,1,5,5,NULL,1,0,0\n1/\xc3\xa9.jpg,1,1,5,5,NULL,1,0,0\n")
    read = read_annotations(root)
    assert [(reject.item_id, reject.reason) for reject in read.rejects] == [("1/\\xff\\xfe.jpg", "bad_path")]
    assert read.table["source_id"].tolist() == ["1/good.jpg", "1/é.jpg", "1/other.jpg"]


def test_a_number_that_is_none_changes_nothing_about_the_other_rows(tmp_path):
    rows = [
        "1/a.jpg,10,20,100,110,NULL,1,0.5,-0.25",
        "1/b.jpg, 1 ,2,3,4,NULL, 7 ,-1e-1,+.75",
        "1/c.jpg,-7,NULL,3,4,NULL,0,1.,-2",
    ]
    clean = read_annotations(_lists(tmp_path / "clean", rows, [GOOD]))
    dirty = read_annotations(_lists(tmp_path / "dirty", [*rows, "1/d.jpg,1,1,5,5,NULL,happy,0,0"], [GOOD]))
    pd.testing.assert_frame_equal(clean.labels, dirty.labels)
    assert _reasons(dirty) == ["bad_expression"]
    assert clean.labels["valence"].tolist() == [0.5, -0.1, 1.0, 0.0]


def test_rows_of_a_long_list_keep_their_order_and_bad_ones_are_counted_alike_every_time(tmp_path):
    rows = [f"{n % 7}/{n:06d}.jpg,1,1,5,5,{LANDMARKS},{n % 11},0,0" for n in range(6000)]
    broken = {n: rows[n] if n % 500 else rows[n].replace(",0,0", "") for n in range(len(rows))}
    root = _lists(tmp_path, list(broken.values()), [GOOD])
    reads = [read_annotations(root) for _ in range(3)]
    expected = [row.split(",")[0] for n, row in enumerate(rows) if n % 500] + ["1/good.jpg"]
    for read in reads:
        assert read.table["source_id"].tolist() == expected
        assert read.rejects == reads[0].rejects
        assert _reasons(read) == ["bad_row"] * 12


def test_the_automatic_list_is_read_only_when_asked(tmp_path):
    root = _lists(tmp_path, [GOOD], [])
    _automatic(root, ["9/auto.jpg,1,1,5,5,NULL,2,0,0", GOOD])
    assert read_annotations(root).table["source_id"].tolist() == ["1/good.jpg"]
    read = read_annotations(root, automatic=True)
    assert read.table["path"].tolist() == [
        "Manually_Annotated/Manually_Annotated_Images/1/good.jpg",
        "Automatically_Annotated/Automatically_Annotated_Images/9/auto.jpg",
    ]
    assert read.table["split"].tolist() == ["train", "train"]
    assert _reasons(read) == ["repeated_row"]


@pytest.mark.parametrize("folder", affectnet.LIST_FOLDERS)
@pytest.mark.parametrize("images", affectnet.IMAGE_FOLDERS)
def test_lists_and_images_are_found_in_the_folders_they_come_in(tmp_path, folder, images):
    (tmp_path / images).mkdir(parents=True)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "training.csv").write_text(GOOD + "\n")
    assert read_annotations(tmp_path).table["path"].tolist() == [f"{images}/1/good.jpg"]


def test_lists_alone_do_where_no_images_are_needed(tmp_path):
    (tmp_path / "training.csv").write_text(GOOD + "\n")
    with pytest.raises(AssetMissingError, match="no image folder"):
        read_annotations(tmp_path)
    assert len(read_annotations(tmp_path, need_images=False).labels) == 1


@pytest.mark.parametrize("as_text", [True, False])
def test_the_mini_set_is_read_from_numbers_and_from_text(tmp_path, as_text):
    def kind(value: object) -> object:
        return str(value) if as_text else value

    root = _mini(
        tmp_path,
        {
            "train_set/10": {"exp": kind(1), "val": kind(0.5), "aro": kind(-0.25), "lnd": POINTS.ravel()},
            "train_set/9": {"exp": kind(7), "val": kind(-2), "aro": kind(-2), "lnd": POINTS.ravel().astype(str)},
            "val_set/0": {"exp": kind(0), "val": kind(0), "aro": kind(1.0), "lnd": POINTS.ravel()[:10]},
        },
    )
    read = read_annotations(root)
    assert not read.rejects
    table = read.table
    assert table["source_id"].tolist() == table["path"].tolist()
    assert table["path"].tolist() == ["train_set/images/9.jpg", "train_set/images/10.jpg", "val_set/images/0.jpg"]
    assert table["split"].tolist() == ["train", "train", "val"]
    assert table["emotion_code"].tolist() == [7, 1, 0]
    np.testing.assert_array_equal(table["arousal"], [np.nan, -0.25, 1.0])
    assert table[["face_x", "face_width"]].isna().all(axis=None)
    landmarks = corpus_landmarks(root, [*table["path"], "train_set/images/77.jpg"])
    assert set(landmarks) == {"train_set/images/9.jpg", "train_set/images/10.jpg"}
    for points in landmarks.values():
        np.testing.assert_array_equal(points, POINTS)


def test_a_damaged_or_missing_npy_file_is_a_reject(tmp_path):
    good = {"exp": "1", "val": "0", "aro": "0"}
    broken = [1, 2, 3, 4, 5, 6, 7, 8]
    root = _mini(tmp_path, {f"train_set/{number}": dict(good) for number in range(9)})
    folder = root / "train_set/annotations"
    (folder / "1_exp.npy").unlink()
    (folder / "8_val.npy").unlink()
    (folder / "8_val.npy").mkdir()
    (folder / "2_val.npy").write_bytes(b"")
    (folder / "3_aro.npy").write_bytes((folder / "0_aro.npy").read_bytes()[:-1])
    np.save(folder / "4_aro.npy", np.array([0.1, 0.2]))
    np.save(folder / "5_aro.npy", np.array({"a": 1}, dtype=object), allow_pickle=True)
    np.save(folder / "6_exp.npy", np.array("joy"))
    np.save(folder / "7_aro.npy", np.array("nan"))
    np.save(folder / "eight_aro.npy", np.array("0"))
    read = read_annotations(root)
    assert sorted((reject.item_id, reject.reason) for reject in read.rejects) == sorted(
        [
            ("train_set/images/1.jpg", "missing_annotation"),
            ("train_set/images/8.jpg", "missing_annotation"),
            *((f"train_set/images/{n}.jpg", "damaged_annotation") for n in (2, 3, 4, 5)),
            ("train_set/images/6.jpg", "bad_expression"),
            ("train_set/images/7.jpg", "bad_arousal"),
            ("train_set/annotations/eight_aro.npy", "bad_name"),
        ]
    )
    assert read.table["path"].tolist() == [f"train_set/images/{n}.jpg" for n in range(9) if n not in broken]


@settings(deadline=None)  # writes files
@given(st.binary(max_size=80), st.integers(0, 200))
def test_any_bytes_are_an_array_or_a_data_error(tmp_path_factory, noise, where):
    path = tmp_path_factory.mktemp("npy") / "x_exp.npy"
    np.save(path, np.array("0.123456"))
    data = bytearray(path.read_bytes())
    data[where : where + len(noise)] = noise
    path.write_bytes(data)
    try:
        array = _npy_array(path)
    except DataError:
        return
    assert array.dtype.kind in "iufUb"


@pytest.mark.parametrize("folder", ["AffectNet+/human_annotated", "human_annotated", "AffectNet+", "."])
def test_affectnet_plus_is_read_with_or_without_its_outer_folders(tmp_path, folder):
    items = {
        "train_set/b": _plus_item(3, 0.5, "0.25", POINTS.ravel().tolist()),
        "train_set/a": _plus_item("4", -2, -2, POINTS.tolist()),
        "validation_set/c": _plus_item(8, 0, 0, None),
    }
    _plus(tmp_path / folder, items)
    read = read_annotations(tmp_path)
    assert not read.rejects
    table = read.table
    prefix = "" if folder == "." else f"{folder}/"
    assert table["source_id"].tolist() == [
        "train_set/images/a.jpg",
        "train_set/images/b.jpg",
        "validation_set/images/c.jpg",
    ]
    assert table["path"].tolist() == [prefix + source for source in table["source_id"]]
    assert table["split"].tolist() == ["train", "train", "val"]
    assert table["emotion_code"].tolist() == [4, 3, 8]
    np.testing.assert_array_equal(table["valence"], [np.nan, 0.5, 0.0])
    landmarks = corpus_landmarks(tmp_path, table["source_id"].tolist())
    assert sorted(landmarks) == ["train_set/images/a.jpg", "train_set/images/b.jpg"]
    np.testing.assert_array_equal(landmarks["train_set/images/b.jpg"], POINTS)


def test_a_damaged_json_file_is_a_reject(tmp_path):
    root = _plus(
        tmp_path,
        {
            "train_set/good": _plus_item(3, 0, 0),
            "train_set/list": [1, 2],
            "train_set/no_arousal": {"human-label": 1, "meta-data": {"valence": 0}},
            "train_set/true": _plus_item(True, 0, 0),
            "train_set/null": _plus_item(2, 0, None),
        },
    )
    (root / "train_set/annotations/cut.json").write_text('{"human-label": ')
    (root / "train_set/annotations/deep.json").write_text("[" * 100_000)
    (root / "train_set/annotations/huge.json").write_text(" " * (1 << 20) + "{}")
    read = read_annotations(root)
    assert read.table["path"].tolist() == ["train_set/images/good.jpg"]
    reasons = {Path(reject.item_id).stem: reject.reason for reject in read.rejects}
    damaged = dict.fromkeys(("list", "no_arousal", "cut", "deep", "huge"), "damaged_annotation")
    assert reasons == damaged | {"true": "bad_expression", "null": "bad_arousal"}


@pytest.mark.parametrize("ending", ["_exp.npy", ".json"])
def test_a_file_name_that_is_no_text_is_a_reject_that_can_be_written(tmp_path, ending):
    root = _mini(tmp_path, {"train_set/1": {"exp": 1, "val": 0, "aro": 0}})
    if ending == ".json":
        root = _plus(tmp_path / "plus", {"train_set/1": _plus_item(1, 0, 0)})
    (root / "train_set/annotations" / os.fsdecode(b"\xff" + ending.encode())).write_text("{")
    read = read_annotations(root)
    assert _reasons(read) == ["bad_name"]
    assert read.rejects[0].item_id == f"train_set/annotations/\\xff{ending}"
    write_rejects(tmp_path / "rejects.parquet", read.rejects)
    assert len(read.labels) == 1


def test_landmarks_of_the_lists_leave_out_null_and_short_ones(tmp_path):
    rows = [
        f"1/a.jpg,1,1,5,5,{LANDMARKS},1,0,0",
        "1/null.jpg,1,1,5,5,NULL,1,0,0",
        "1/short.jpg,1,1,5,5,1;2;3,1,0,0",
        f"1/nan.jpg,1,1,5,5,{LANDMARKS.replace('0.25', 'nan', 1)},1,0,0",
        "broken,row",
        f"1/unasked.jpg,1,1,5,5,{LANDMARKS},1,0,0",
    ]
    root = _lists(tmp_path, rows, [f"1/v.jpg,1,1,5,5,{LANDMARKS},1,0,0"])
    asked = ["1/a.jpg", "1/null.jpg", "1/short.jpg", "1/nan.jpg", "1/v.jpg", "1/absent.jpg"]
    found = corpus_landmarks(root, asked)
    assert sorted(found) == ["1/a.jpg", "1/v.jpg"]
    np.testing.assert_array_equal(found["1/a.jpg"], POINTS)
    assert corpus_landmarks(root, []) == {}


@given(st.lists(st.text(st.sampled_from("ab./\\: \0é"), max_size=8), max_size=20))
def test_a_path_is_safe_exactly_where_it_can_be_resolved_inside_the_root(tmp_path_factory, names):
    root = tmp_path_factory.getbasetemp()

    def is_refused(name: str) -> bool:
        try:
            resolve_inside(root, name)
        except DataError:
            return True
        return not name.strip() or (name[1:2] == ":" and name[0].isascii() and name[0].isalpha())

    array = pa.array([name.encode() for name in names], pa.large_binary())
    assert unsafe_paths(array).tolist() == [is_refused(name) for name in names]


def test_a_link_out_of_the_corpus_is_refused_where_the_image_is_opened(tmp_path):
    root = _lists(tmp_path / "corpus", [GOOD, GOOD.replace("good", "link")], [])
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    images = root / "Manually_Annotated/Manually_Annotated_Images"
    (images / "1/good.jpg").write_bytes(b"picture")
    (images / "1/link.jpg").symlink_to(tmp_path / "secret.jpg")
    good, link = read_annotations(root).table["path"]
    assert resolve_inside(root, good).read_bytes() == b"picture"
    with pytest.raises(DataError, match="through a link"):
        resolve_inside(root, link)


def test_image_paths_of_some_rows_are_those_of_the_table(tmp_path):
    root = _lists(tmp_path, [GOOD.replace("good", name) for name in "abc"], [GOOD])
    _automatic(root, [GOOD.replace("good", "auto")])
    read = read_annotations(root, automatic=True)
    rows = [4, 0, 2]
    assert image_paths(read.labels.iloc[rows]).tolist() == read.table["path"].iloc[rows].tolist()


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(AssetMissingError, match=r"nowhere not found.*mohammadmahoor.*ecavatar doctor"):
        read_annotations(tmp_path / "nowhere")
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(
        AssetMissingError, match=r"(?s)training\.csv.*_exp\.npy.*\.json.*found holiday\.jpg.*mohammadmahoor"
    ):
        read_annotations(tmp_path)
    (tmp_path / affectnet.IMAGE_FOLDERS[0]).mkdir(parents=True)
    with pytest.raises(AssetMissingError, match=r"training\.csv"):
        read_annotations(tmp_path)


def test_two_layouts_in_one_folder_are_refused(tmp_path):
    root = _mini(_lists(tmp_path, [GOOD], []), {"train_set/1": {"exp": 1, "val": 0, "aro": 0}})
    with pytest.raises(DataError, match="two layouts"):
        read_annotations(root)


def test_only_the_lists_of_2017_have_automatic_annotations(tmp_path):
    root = _mini(tmp_path, {"train_set/1": {"exp": 1, "val": 0, "aro": 0}})
    with pytest.raises(AssetMissingError, match="only AffectNet of 2017"):
        read_annotations(root, automatic=True)


@pytest.mark.parametrize(
    ("first", "message"),
    [("a,b,c", "9 columns"), ("", "9 columns"), (HEADER.replace("face_x,face_y", "face_y,face_x"), "this order")],
)
def test_a_list_of_another_format_is_refused(tmp_path, first, message):
    root = _lists(tmp_path, [GOOD], [first])
    with pytest.raises(DataError, match=message):
        read_annotations(root)


def test_no_image_is_opened(tmp_path):
    root = _lists(tmp_path, [GOOD], [])
    image = root / "Manually_Annotated/Manually_Annotated_Images/1/good.jpg"
    os.mkfifo(image)  # opening it would wait for ever
    assert len(read_annotations(root).labels) == 1
