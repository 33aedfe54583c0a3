"""Which faces FuNet learns to fuse: random pairs of a lip-synchronised frame and an emotional face, as indices only.

Training pairs take frames of VOCATeeth's training subjects and most of the pool's faces; validation pairs take frames
of the validation subjects and the faces kept back, so neither side of a validation pair was seen in training.

Source:
    The ECAvatar paper, section 4.3 (81,223 random pairs of VOCASET models and AffectNet reconstructions).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from ecavatar.config import PairsSettings
from ecavatar.errors import DataError, SplitLeakError
from ecavatar.face.model import FaceAsset
from ecavatar.face.tags import require_basis
from ecavatar.seeding import stream
from ecavatar.storage.files import read_json, sha256_file, write_json
from ecavatar.storage.parquet import read_table, table_metadata, vector_array, write_table
from ecavatar.storage.shards import list_shards, read_shards
from ecavatar.vocateeth.dataset import VocaTeeth

_SPLITS = {"train": "train", "validation": "val"}  # ours -> VOCATeeth's


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacePool:
    """Emotional faces as coefficients."""

    item_ids: tuple[str, ...]
    shape: Float[np.ndarray, "N S"]
    expression: Float[np.ndarray, "N E"]
    jaw_pose: Float[np.ndarray, "N 3"]

    @classmethod
    def open(cls, directory: Path) -> "FacePool":
        """The reconstructed pool in `directory` (part-*.parquet).

        Raises:
            AssetMissingError: it is not there.
            DataError: it is empty or an item occurs twice.
        """
        table = read_shards(directory, ["item_id", "shape", "expression", "jaw_pose"])
        item_ids = tuple(table["item_id"].to_pylist())
        if not item_ids or len(set(item_ids)) != len(item_ids):
            raise DataError(f"{directory}: expected different faces, found {len(item_ids)} rows, some twice or none.")
        coefficients = {name: vector_array(table[name]) for name in ("shape", "expression", "jaw_pose")}
        return cls(item_ids=item_ids, **coefficients)

    def require_basis(self, directory: Path, asset: FaceAsset) -> None:
        """Check that the coefficients in `directory` belong to this face model.

        Raises:
            BasisError: they belong to another, or do not say.
        """
        for path in list_shards(directory):
            require_basis(asset, table_metadata(path).get("basis"), path)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FacePairs:
    """Pairs of one split, as indices."""

    clip_ids: tuple[str, ...]
    """Clip of each pair's frame."""
    frames: Int[np.ndarray, " n"]
    """Frame inside the clip."""
    item_ids: tuple[str, ...]
    """Face of each pair."""

    def __len__(self) -> int:
        return len(self.clip_ids)


def draw_pairs(teeth: VocaTeeth, item_ids: Sequence[str], settings: PairsSettings, seed: int) -> dict[str, FacePairs]:
    """Random pairs for `train` and `validation`; they depend on names and seed, not on the order of the pool.

    Frames and faces are drawn without repetition until they run out, then again from the start in a new order.

    Raises:
        DataError: fewer than two faces, or a split of VOCATeeth is empty.
    """
    faces = sorted(item_ids)
    if len(faces) < 2:
        raise DataError(f"the pool has {len(faces)} face(s); FuNet needs at least one to train and one to validate.")
    kept = min(len(faces) - 1, max(1, round(settings.validation_faces * len(faces))))
    shuffled = [faces[index] for index in stream(seed, "pairs", "faces").permutation(len(faces))]
    groups = {"train": shuffled[kept:], "validation": shuffled[:kept]}
    counts = {"train": settings.train, "validation": settings.validation}
    return {name: _draw(teeth, name, groups[name], counts[name], seed) for name in _SPLITS}


def write_pairs(directory: Path, pairs: dict[str, FacePairs], teeth: VocaTeeth) -> None:
    """Write <split>.parquet (clip_id, frame, item_id) and info.json into an existing directory."""
    for name, split in pairs.items():
        columns = {
            "clip_id": pa.array(split.clip_ids, pa.string()),
            "frame": pa.array(split.frames, pa.int32()),
            "item_id": pa.array(split.item_ids, pa.string()),
        }
        write_table(directory / f"{name}.parquet", pa.table(columns), row_group_size=65536)
    info = {
        "pairs": {name: len(split) for name, split in pairs.items()},
        "faces": {name: len(set(split.item_ids)) for name, split in pairs.items()},
        "vocateeth": teeth.fingerprint(),
    }
    write_json(directory / "info.json", info)


def read_pairs(directory: Path, teeth: VocaTeeth) -> dict[str, FacePairs]:
    """The pairs in `directory`.

    Raises:
        AssetMissingError: they are not there.
        DataError: they were drawn for another VOCATeeth, or a split is empty.
        SplitLeakError: a face or clip occurs in both splits.
    """
    if read_json(directory / "info.json").get("vocateeth") != teeth.fingerprint():
        raise DataError(f"{directory} was drawn for another VOCATeeth than {teeth.directory}. Run pair_faces again.")
    pairs = {}
    for name in _SPLITS:
        table = read_table(directory / f"{name}.parquet", ["clip_id", "frame", "item_id"])
        if not table.num_rows:
            raise DataError(f"{directory}: no {name} pairs. Run pair_faces again.")
        pairs[name] = FacePairs(
            clip_ids=tuple(table["clip_id"].to_pylist()),
            frames=table["frame"].to_numpy(),
            item_ids=tuple(table["item_id"].to_pylist()),
        )
    for kind in ("clip_ids", "item_ids"):
        both = set(getattr(pairs["train"], kind)) & set(getattr(pairs["validation"], kind))
        if both:
            raise SplitLeakError(f"{directory}: {min(both)} and {len(both) - 1} more are in training and validation.")
    return pairs


def pairs_fingerprint(directory: Path) -> str:
    """Hash of all pairs."""
    return "".join(sha256_file(directory / f"{name}.parquet")[:32] for name in _SPLITS)


def _draw(teeth: VocaTeeth, name: str, faces: Sequence[str], count: int, seed: int) -> FacePairs:
    clips = teeth.of_split(_SPLITS[name])
    owners = np.repeat(np.arange(len(clips)), [clip.frames for clip in clips])
    numbers = np.concatenate([np.arange(clip.frames) for clip in clips])
    rows = _cycled(stream(seed, "pairs", name, "frames"), len(owners), count)
    chosen = _cycled(stream(seed, "pairs", name, "partners"), len(faces), count)
    return FacePairs(
        clip_ids=tuple(clips[owners[row]].clip_id for row in rows),
        frames=numbers[rows].astype(np.int32),
        item_ids=tuple(faces[index] for index in chosen),
    )


def _cycled(generator: np.random.Generator, n: int, count: int) -> Int[np.ndarray, " count"]:
    return np.concatenate([generator.permutation(n) for _ in range(-(-count // n))])[:count]
