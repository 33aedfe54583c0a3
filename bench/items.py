"""Reading one item of Emolib: the release's default config against a folder of obj + npy per item.

Both sides give the same item: labels and coefficients. The folder gives a mesh, too, because that is how such data are
exchanged; whoever wants only its coefficients still downloads all of it. Page cache warm on both sides.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench._record import best_seconds, record
from ecavatar.config import ExportSettings
from ecavatar.emolib.dataset import write_emolib
from ecavatar.emolib.item_folders import export_item_folders
from ecavatar.emolib.loader import EmolibItems
from ecavatar.emolib.schema import ROW_GROUP
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.face.model import FaceAsset
from ecavatar.seeding import stream
from ecavatar.storage.parquet import vector_column

ITEMS = 500
PICKED = 40  # folders read in one measurement
FACE_MODEL = Path("data/sample/assets/face/face_model.npz")
_REPETITIONS = 25
_GROUP = ROW_GROUP["coefficients"]
LEAN = ExportSettings(vertices="none", images=False, rows_per_file=100_000)


def faces(asset: FaceAsset) -> pa.Table:
    """Random coefficients with the labels, cameras and hashes that real faces have."""
    rng = stream(0, "bench", "items")
    names = [Emotion(k % 8).label for k in range(ITEMS)]
    levels = [LEVELS[k // 8 % 3] for k in range(ITEMS)]
    scalars = {
        "item_id": [f"{name}_{level}_{k:06d}" for k, (name, level) in enumerate(zip(names, levels, strict=True))],
        "source_id": [f"{k % 1000}/{rng.bytes(28).hex()}.jpg" for k in range(ITEMS)],
        "split": ["train"] * ITEMS,
        "emotion": names,
        "level": levels,
        **{name: rng.normal(size=ITEMS) for name in ("valence", "arousal", "scale_px_per_m", "alignment_residual_m",
                                                     "residual_mm")},
        "image_height_px": rng.integers(100, 1000, ITEMS),
        "image_width_px": rng.integers(100, 1000, ITEMS),
        "alignment_is_converged": [True] * ITEMS,
        "perceptual_hash": [rng.bytes(32).hex() for _ in range(ITEMS)],
    }  # fmt: skip
    sizes = {"shape": asset.n_shape, "expression": asset.n_expression, "jaw_pose": 3, "rotation": 9,
             "translation_px": 2, "removed_transform": 16}  # fmt: skip
    scale = {"jaw_pose": 0.1}
    vectors = {name: vector_column(rng.normal(size=(ITEMS, size)) * scale.get(name, 1)) for name, size in sizes.items()}
    return pa.table({**scalars, **vectors})


def read_folder(folder: Path) -> dict[str, object]:
    """One item as users read such folders."""
    import trimesh

    arrays = {name: np.load(folder / f"{name}.npy") for name in ("shape", "exp", "jaw")}
    label = json.loads((folder / "label.json").read_text())
    mesh = trimesh.load(folder / "mesh.obj", process=False)
    return {**label, **arrays, "vertices": mesh.vertices}


def untouched(release: Path) -> Callable[[], None]:
    """Reads one random item of every row group but the first from an open release: none of them was decoded before."""
    rng = stream(0, "bench", "items", "untouched")
    picks = [int(rng.integers(k, min(k + _GROUP, ITEMS))) for k in range(_GROUP, ITEMS, _GROUP)]
    order = rng.permutation(picks).tolist()
    opened = [EmolibItems(release) for _ in range(_REPETITIONS)]
    for items in opened:
        items[0]  # opens the file

    def work() -> None:
        items = opened.pop()
        for index in order:
            items[index]

    return work


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def measure(release: Path, folder: Path, order: Sequence[int]) -> dict[str, object]:
    """Seconds and bytes of both sides; refuses to compare different things."""
    items, by_id = EmolibItems(release), {path.parent.name: path.parent for path in folder.rglob("mesh.obj")}
    for index in order[:PICKED]:
        item, other = items[index], read_folder(by_id[str(items[index]["item_id"])])
        if not np.array_equal(item["shape"], other["shape"]) or item["emotion"] != other["emotion"]:  # pyright: ignore
            raise RuntimeError(f"item {index} differs between release and folder")
    picked = [by_id[str(items[index]["item_id"])] for index in order[:PICKED]]
    bytes_default, bytes_folder = size(release / "data" / "coefficients"), size(folder)
    folder_s = best_seconds(lambda: [read_folder(path) for path in picked]) / PICKED
    first_s = best_seconds(lambda: _random_pass(release, order)) / ITEMS
    again_s = best_seconds(lambda: [items[index] for index in order]) / ITEMS
    untouched_s = best_seconds(untouched(release), _REPETITIONS) / (-(-ITEMS // _GROUP) - 1)
    return {
        "items": ITEMS,
        "page_cache": "warm on both sides",
        "folder_item_seconds": folder_s,
        "item_seconds": first_s,  # of one random pass over a release just opened, opening and decoding included
        "item_seconds_later": again_s,  # its row group is decoded already
        "item_seconds_alone": untouched_s,  # nothing else of its row group is read
        "speed_ratio": folder_s / first_s,
        "speed_ratio_later": folder_s / again_s,
        "speed_ratio_alone": folder_s / untouched_s,
        "default_config_bytes": bytes_default,
        "release_bytes": size(release),
        "folder_bytes": bytes_folder,
        "bytes_share_of_folder": bytes_default / bytes_folder,
    }


def _random_pass(release: Path, order: Sequence[int]) -> None:
    items = EmolibItems(release)
    for index in order:
        items[index]


def main() -> None:
    asset = FaceAsset.load(FACE_MODEL)
    with tempfile.TemporaryDirectory() as directory:
        release, folder = Path(directory) / "release", Path(directory) / "items"
        write_emolib(release, faces(asset), asset=asset, backend="random", settings=LEAN, source="sample")
        export_item_folders(release, folder, asset)
        order = stream(0, "bench", "items", "order").permutation(ITEMS).tolist()
        record("items", measure(release, folder, order), ["numpy", "pyarrow", "trimesh"])


if __name__ == "__main__":
    main()
