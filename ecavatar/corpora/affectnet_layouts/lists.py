"""AffectNet as of 2017: lists in CSV files, images in numbered folders.

What the reader puts up with: either list may have a header line or none, landmarks may be NULL, face boxes may be
negative, valence and arousal are -2 where nobody gave them, image suffixes come in many spellings, rows may be broken.
Source: Mollahosseini et al., IEEE Transactions on Affective Computing 2019.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from jaxtyping import Float

from ecavatar.corpora.affectnet_layouts.annotations import RAW_SCHEMA, STAGE, RawRows
from ecavatar.corpora.affectnet_layouts.landmarks import landmarks_of
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
AUTOMATIC_LIST = "automatically_annotated.csv"
AUTOMATIC_LIST_FOLDERS = (
    "Automatically_annotated_file_list",
    "Automatically_Annotated/Automatically_annotated_file_list",
    ".",
)
AUTOMATIC_IMAGE_FOLDERS = (
    "Automatically_Annotated/Automatically_Annotated_Images",
    "Automatically_Annotated_compressed/Automatically_Annotated_Images",
    "Automatically_Annotated_Images",
)

_NUMBER = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_NULLS = ["", "NULL"]
_LINES_LOOKED_AT = 16
_MOST_OF_A_LINE = 1 << 16


@dataclass(frozen=True, slots=True)
class FileLists:
    """AffectNet of 2017 in the folder `root`."""

    root: Path

    @classmethod
    def find(cls, root: Path) -> "FileLists | None":
        """The layout, where `root` has a list or an image folder of it."""
        has_list = any(_find_list(root, name, LIST_FOLDERS) for name in LISTS.values())
        has_automatic = _find_list(root, AUTOMATIC_LIST, AUTOMATIC_LIST_FOLDERS) is not None
        has_images = any((root / folder).is_dir() for folder in IMAGE_FOLDERS)
        return cls(root) if has_list or has_automatic or has_images else None

    def read(self, *, automatic: bool, need_images: bool) -> tuple[list[RawRows], list[Reject]]:
        """The rows of the lists, and those with a wrong number of fields.

        Raises:
            AssetMissingError: no list, or no image folder although `need_images`.
            DataError: a list has another number of columns.
        """
        lists, rejects = [], []
        for path, split, folders in self._lists(automatic=automatic):
            rows, bad = _read_rows(path)
            rejects += bad
            folder = _image_folder(self.root, folders, need_images=need_images)
            lists.append(RawRows(rows=rows, split=split, folder=folder, name=path.name))
        return lists, rejects

    def landmarks(self, source_ids: Sequence[str]) -> dict[str, Float[np.ndarray, "68 2"]]:
        """The 68 landmarks of the images that have them, in pixels of the whole image."""
        found: dict[str, Float[np.ndarray, "68 2"]] = {}
        wanted = pa.array([source.encode() for source in source_ids], pa.binary())
        for path, _, _ in self._lists(automatic=True):
            for names, texts in _landmark_texts(path, wanted):
                for name, text in zip(names, texts, strict=True):
                    points = landmarks_of(text.split(b";"))
                    if points is not None:
                        found.setdefault(name.decode(), points)
        return found

    def _lists(self, *, automatic: bool) -> list[tuple[Path, str, Sequence[str]]]:
        """Path, split and possible image folders of each list that is there."""
        places = [(name, split, LIST_FOLDERS, IMAGE_FOLDERS) for split, name in LISTS.items()]
        if automatic:
            places.append((AUTOMATIC_LIST, "train", AUTOMATIC_LIST_FOLDERS, AUTOMATIC_IMAGE_FOLDERS))
        lists: list[tuple[Path, str, Sequence[str]]] = [
            (path, split, images)
            for name, split, folders, images in places
            if (path := _find_list(self.root, name, folders)) is not None
        ]
        if not lists:
            raise AssetMissingError(
                f"no {' or '.join(LISTS.values())} below {self.root}. Expected in {LIST_FOLDERS[0]}/, as AffectNet "
                "ships them. Copy that folder of the distribution there."
            )
        return lists


def _find_list(root: Path, name: str, folders: Sequence[str]) -> Path | None:
    return next((path for folder in folders if (path := root / folder / name).is_file()), None)


def _image_folder(root: Path, folders: Sequence[str], *, need_images: bool) -> str:
    found = [folder for folder in folders if (root / folder).is_dir()]
    if not found and need_images:
        raise AssetMissingError(
            f"no image folder in {root}. Expected {folders[0]}/ with numbered subfolders; unpack the images there, or "
            "select from the annotations only."
        )
    return found[0] if found else folders[0]


def _read_rows(path: Path) -> tuple[pa.Table, list[Reject]]:
    """All rows with the right number of fields, without the landmarks; the others become rejects.

    The numbers are converted while the file is read. Where one of them is none, the file is read again as text, and
    what is no number becomes null.
    """
    types = dict(zip(COLUMNS, [*RAW_SCHEMA.types[:5], pa.binary(), *RAW_SCHEMA.types[5:]], strict=True))
    kept = [name for name in COLUMNS if name != "facial_landmarks"]
    try:
        try:
            table, rejects = _read_csv(path, types, kept)
        except pa.ArrowInvalid:
            texts, rejects = _read_csv(path, dict.fromkeys(COLUMNS, pa.large_binary()), kept)
            numbers = [
                _numbers(column).cast(kind)
                for column, kind in zip(texts.columns[1:], RAW_SCHEMA.types[1:], strict=True)
            ]
            table = pa.table([texts.column(0), *numbers], names=kept)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not an AffectNet list: {error}. Replace it by the original file.") from None
    return table.rename_columns(RAW_SCHEMA.names), rejects


def _read_csv(path: Path, types: dict[str, pa.DataType], columns: list[str]) -> tuple[pa.Table, list[Reject]]:
    bad: list[tuple[str, int]] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        bad.append(((row.text or "")[:80], row.actual_columns))
        return "skip"

    has_header, is_quoted = _first_lines(path)
    table = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(column_names=list(COLUMNS), skip_rows=int(has_header)),
        parse_options=pa.csv.ParseOptions(invalid_row_handler=skip, quote_char='"' if is_quoted else False),
        convert_options=pa.csv.ConvertOptions(
            column_types=types, include_columns=columns, null_values=_NULLS, strings_can_be_null=False
        ),
    )
    # several threads meet bad rows in any order
    return table, [
        Reject(f"{path.name}: {text}", STAGE, "bad_row", f"{count} fields instead of {len(COLUMNS)}")
        for text, count in sorted(bad)
    ]


def _first_lines(path: Path) -> tuple[bool, bool]:
    """Whether a list begins with a header, and whether its fields are in quotation marks.

    Raises:
        DataError: no line among the first has the right number of columns, or the header has other names.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = [file.readline(_MOST_OF_A_LINE) for _ in range(_LINES_LOOKED_AT)]
    rows = [[field.strip().strip('"').lower() for field in line.split(",")] for line in lines]
    expected = ", ".join(COLUMNS)
    if not any(len(row) == len(COLUMNS) for row in rows):
        raise DataError(
            f"{path} must have {len(COLUMNS)} columns ({expected}), got {len(rows[0])} in its first line. Replace it "
            "by the original file."
        )
    has_header = "expression" in rows[0]
    if has_header and rows[0] != [name.lower() for name in COLUMNS]:
        raise DataError(f"{path} must have the columns {expected}, got {', '.join(rows[0])}. Put them into this order.")
    return has_header, any('"' in line for line in lines[:2])


def _numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Each text as a number, null where it is none."""
    is_number = pc.match_substring_regex(texts, _NUMBER)
    plain = pc.if_else(is_number, texts, pa.scalar(None, texts.type)).cast(pa.large_string())
    return pc.ascii_trim_whitespace(plain).cast(pa.float64())


def _landmark_texts(path: Path, wanted: pa.Array) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Names and landmarks of the wanted rows, block by block, so that memory stays flat."""
    has_header, is_quoted = _first_lines(path)
    reader = pa.csv.open_csv(
        path,
        read_options=pa.csv.ReadOptions(column_names=list(COLUMNS), skip_rows=int(has_header)),
        parse_options=pa.csv.ParseOptions(invalid_row_handler=lambda _: "skip", quote_char='"' if is_quoted else False),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(COLUMNS, pa.binary()),
            include_columns=["subDirectory_filePath", "facial_landmarks"],
            strings_can_be_null=False,
        ),
    )
    with reader:
        for batch in reader:
            rows = batch.filter(pc.is_in(batch.column(0), wanted))
            yield rows.column(0).to_pylist(), rows.column(1).to_pylist()
