"""The open head: FLAME's counts and schema, computed from CC0 shape targets."""

from pathlib import Path

from ecavatar.face.model import FaceAsset


def build_open_head() -> FaceAsset:
    """The open head as a face asset."""
    raise NotImplementedError


def write_open_head(path: Path) -> None:
    """Write the open head for `FaceAsset.load`."""
    build_open_head().save(path)
