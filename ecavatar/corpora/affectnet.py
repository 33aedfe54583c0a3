"""AffectNet's lists of manually annotated images, in the layout of the 2017 release.

What the reader puts up with: validation.csv has no header line, landmarks may be NULL, face boxes may be negative,
valence and arousal are -2 where nobody gave them, image suffixes come in many spellings.
Source: Mollahosseini et al., IEEE Transactions on Affective Computing 2019.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.rejects import Reject

COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
"""Header of the lists."""

LISTS = {"train": "training.csv", "val": "validation.csv"}
LIST_FOLDERS = ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists", ".")
IMAGE_FOLDERS = (
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_compressed/Manually_Annotated_Images",
    "Manually_Annotated_Images",
)
CODES = range(11)
"""0..7 are the eight categories; 8 none, 9 uncertain, 10 no face."""
NOT_ANNOTATED = -2.0
STAGE = "read_affectnet"

_BOX = ["face_x", "face_y", "face_width", "face_height"]
_READ = [*COLUMNS[:5], *COLUMNS[6:]]


@dataclass(frozen=True, slots=True)
class Annotations:
    """The rows that can be used, and those that cannot."""

    table: pd.DataFrame
    """One row per image, in the order of the lists: source_id (the path as the list gives it), path (posix, relative
    to the corpus folder), split (train or val), emotion_code (int64, 0..10), valence and arousal (float64 in -1..1, NaN
    where not annotated), face_x, face_y, face_width, face_height (float64 pixels, all NaN without a real box)."""
    rejects: list[Reject]
    """Bad rows with their reasons, in the order of the lists."""


def read_annotations(root: Path) -> Annotations:
    """The annotations of the AffectNet folder `root`; images are not opened.

    Raises:
        AssetMissingError: the folder, its image folder or both lists are missing.
        DataError: a list has another number of columns.
    """
    images = _image_folder(root)
    lists = {split: path for split, name in LISTS.items() if (path := _find_list(root, name)) is not None}
    if not lists:
        raise AssetMissingError(
            f"no {' or '.join(LISTS.values())} below {root}. Expected in {LIST_FOLDERS[0]}/, as AffectNet ships them."
        )
    tables, rejects = [], []
    for split, path in lists.items():
        table, bad = _read_list(path, split)
        tables.append(table)
        rejects += bad
    table = pd.concat(tables, ignore_index=True)
    repeated = table["source_id"].duplicated()
    rejects += [
        Reject(source, STAGE, "repeated_row", "an earlier row names the same image")
        for source in table.loc[repeated, "source_id"]
    ]
    table = table.loc[~repeated].reset_index(drop=True)
    table.insert(1, "path", [f"{images}/{source}" for source in table["source_id"]])
    return Annotations(table, rejects)


def _image_folder(root: Path) -> str:
    if not root.is_dir():
        raise AssetMissingError(f"AffectNet folder {root} not found.")
    found = [folder for folder in IMAGE_FOLDERS if (root / folder).is_dir()]
    if not found:
        raise AssetMissingError(f"no image folder in {root}. Expected {IMAGE_FOLDERS[0]}/ with numbered subfolders.")
    return found[0]


def _find_list(root: Path, name: str) -> Path | None:
    return next((path for folder in LIST_FOLDERS if (path := root / folder / name).is_file()), None)


def _read_list(path: Path, split: str) -> tuple[pd.DataFrame, list[Reject]]:
    raw, rejects = _read_rows(path)
    numbers = pd.DataFrame({name: pd.to_numeric(raw[name], errors="coerce") for name in _READ[1:]})
    problems = _row_problems(raw, numbers)
    bad = problems != ""
    rejects += [
        Reject(source or f"{path.name}, row {row + 1}", STAGE, *problem.split(": ", 1))
        for row, source, problem in zip(
            np.flatnonzero(bad), raw["subDirectory_filePath"][bad], problems[bad], strict=True
        )
    ]
    good = numbers[~bad]
    table = pd.DataFrame({"source_id": raw["subDirectory_filePath"][~bad].str.replace("\\", "/")})
    table["split"] = split
    table["emotion_code"] = good["expression"].astype(np.int64)
    for name in ("valence", "arousal"):
        table[name] = good[name].where(good[name] != NOT_ANNOTATED).astype(np.float64)
    has_box = (good["face_width"] > 0) & (good["face_height"] > 0) & good[_BOX].notna().all(axis=1)
    table[_BOX] = good[_BOX].where(has_box).astype(np.float64)
    return table, rejects


def _read_rows(path: Path) -> tuple[pd.DataFrame, list[Reject]]:
    """All rows as text, without the landmarks; rows with a wrong number of fields become rejects."""
    rejects: list[Reject] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        detail = f"{row.actual_columns} fields instead of {row.expected_columns}"
        rejects.append(Reject(f"{path.name}: {(row.text or '')[:80]}", STAGE, "bad_row", detail))
        return "skip"

    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(
                column_names=list(COLUMNS), skip_rows=int(_has_header(path)), use_threads=False
            ),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=skip),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()), include_columns=_READ, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not an AffectNet list: {error}") from None
    return table.to_pandas(), rejects


def _has_header(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        fields = file.readline().rstrip("\r\n").split(",")
    if len(fields) != len(COLUMNS):
        raise DataError(f"{path} must have {len(COLUMNS)} columns ({', '.join(COLUMNS)}), got {len(fields)}.")
    return not fields[6].strip().lstrip("-").isdecimal()


def _row_problems(raw: pd.DataFrame, numbers: pd.DataFrame) -> np.ndarray:
    """Reason and detail of every bad row as "reason: detail"; empty for a good one. The first problem counts."""
    problems = np.full(len(raw), "", dtype=object)

    def mark(bad: np.ndarray, text: str) -> None:
        problems[bad & (problems == "")] = text

    safe = np.array([_is_inside(text) for text in raw["subDirectory_filePath"]], dtype=bool)
    mark(~safe, "bad_path: the path is empty, absolute or leads out of the image folder")
    mark(
        ~np.isin(numbers["expression"].to_numpy(), list(CODES)),
        "bad_expression: the expression code is not one of 0..10",
    )
    for name in ("valence", "arousal"):
        rating = numbers[name].to_numpy()
        mark(~((np.abs(rating) <= 1) | (rating == NOT_ANNOTATED)), f"bad_{name}: {name} is neither in -1..1 nor -2")
    return problems


def _is_inside(text: str) -> bool:
    path = PurePosixPath(text.replace("\\", "/"))
    is_drive = len(text) > 1 and text[1] == ":"
    return bool(text.strip()) and not path.is_absolute() and not is_drive and ".." not in path.parts
