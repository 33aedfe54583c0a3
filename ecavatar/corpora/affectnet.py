"""AffectNet's annotated images, in every layout it has been given out in.

* 2017: CSV lists and numbered image folders (`ecavatar.corpora.affectnet_layouts.lists`);
* 2021, the mini set of eight classes: npy files per image (`ecavatar.corpora.affectnet_layouts.items`);
* AffectNet+: a json file per image (likewise).

All become one table; images are not opened.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ecavatar.corpora.affectnet_layouts.annotations import Annotations, checked_annotations, image_paths
from ecavatar.corpora.affectnet_layouts.items import JsonItems, NpyItems
from ecavatar.corpora.affectnet_layouts.lists import (
    AUTOMATIC_LIST,
    COLUMNS,
    IMAGE_FOLDERS,
    LIST_FOLDERS,
    LISTS,
    FileLists,
)
from ecavatar.errors import AssetMissingError, DataError

__all__ = [
    "COLUMNS",
    "IMAGE_FOLDERS",
    "LISTS",
    "LIST_FOLDERS",
    "Annotations",
    "corpus_landmarks",
    "image_paths",
    "read_annotations",
]

_EXPECTED = (
    f"{LIST_FOLDERS[0]}/{LISTS['train']} and {IMAGE_FOLDERS[0]}/ (2017), or train_set/annotations/*_exp.npy (the mini "
    "set of eight classes), or AffectNet+/human_annotated/train_set/annotations/*.json"
)


def read_annotations(root: Path, *, automatic: bool = False, need_images: bool = True) -> Annotations:
    """The annotations of the AffectNet folder `root`, whatever its layout; images are not opened.

    Args:
        root: the folder of the distribution; the layout is told by what is in it.
        automatic: also read the 2017 list of automatically annotated images (as `train`). A network made its labels.
        need_images: miss the 2017 image folder. False: take the usual one, for work on annotations alone.

    Raises:
        AssetMissingError: nothing of AffectNet, or not what was asked for, is in the folder.
        DataError: two layouts are in the folder, or a list has other columns.
    """
    layout = _layout(root)
    if isinstance(layout, FileLists):
        return checked_annotations(*layout.read(automatic=automatic, need_images=need_images))
    if automatic:
        raise AssetMissingError(
            f"no {AUTOMATIC_LIST} in {root}; only AffectNet of 2017 has it. Leave the automatic annotations out."
        )
    return checked_annotations(*layout.read())


def corpus_landmarks(root: Path, source_ids: Sequence[str]) -> dict[str, Float[np.ndarray, "68 2"]]:
    """The 68 landmarks that AffectNet gives of these images, in pixels of the image file.

    Args:
        root: the folder of the distribution, as for `read_annotations`.
        source_ids: as in its table.

    Returns:
        By source_id. Images whose landmarks are NULL, missing or damaged are absent.

    Raises:
        AssetMissingError: nothing of AffectNet is in the folder.
        DataError: two layouts are in the folder, or a list has other columns.
    """
    return _layout(root).landmarks(source_ids)


def _layout(root: Path) -> FileLists | NpyItems | JsonItems:
    get = "Ask for AffectNet at mohammadmahoor.com/pages/databases/affectnet; `ecavatar doctor` says where it goes."
    if not root.is_dir():
        raise AssetMissingError(f"AffectNet folder {root} not found. {get}")
    found = [layout for kind in (FileLists, NpyItems, JsonItems) if (layout := kind.find(root)) is not None]
    if not found:
        seen = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise AssetMissingError(f"no AffectNet in {root}. Expected {_EXPECTED}; found {seen}. {get}")
    if len(found) > 1:
        kinds = " and ".join(type(layout).__name__ for layout in found)
        raise DataError(f"{root} holds AffectNet in two layouts ({kinds}). Give each a folder of its own: {_EXPECTED}.")
    return found[0]
