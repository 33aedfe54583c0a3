"""EMICA as a function: crops in, FLAME coefficients and a camera on the original photograph out."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from ecavatar.errors import BasisError, ConfigError, DataError
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.emica.checkpoint import LoadedEmica, load_networks
from ecavatar.reconstruction.emica.crops import CropBox, FaceCrops
from ecavatar.reconstruction.emica.networks import CROP_PX, N_EXPRESSION, N_SHAPE, EmicaNetworks

_turn = threading.Lock()
"""One forward pass at a time: torch's number of threads belongs to the process."""
_loading = threading.Lock()
"""The weights are read once, not by every shard that starts at the same time."""


class NoCameraError(DataError):
    """Networks that place a face nowhere in the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmicaCodes:
    """What the networks say of one photograph, float32."""

    shape: Float[np.ndarray, "300"]
    expression: Float[np.ndarray, "100"]
    jaw_pose: Float[np.ndarray, "3"]
    """Axis-angle; 0 for a variant without jaw."""
    global_pose: Float[np.ndarray, "3"]
    """Axis-angle about the root joint."""
    camera: Float[np.ndarray, "3"]
    """Scale s and shift t: a point shows at s * (x + tx), -s * (y + ty) in the crop's -1..1."""
    light: Float[np.ndarray, "27"]
    """9 spherical harmonics by 3 colours, row-major."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCamera:
    """The weak-perspective camera of the whole photograph for points of the unposed head."""

    rotation: Float[np.ndarray, "3 3"]
    scale_px_per_m: float
    translation_px: Float[np.ndarray, "2"]


class Emica:
    """The networks on one device; may be shared by threads, whose calls take turns."""

    def __init__(self, networks: EmicaNetworks, basis: str, device: torch.device | str, threads: int) -> None:
        """Take over the networks.

        Args:
            networks: with their weights; moved to `device`, switched to evaluation.
            basis: what their coefficients mean.
            device: where to compute.
            threads: CPU threads, since the last bits of sums depend on them.
        """
        self.device, self.basis, self.threads = torch.device(device), basis, threads
        self._networks = networks.to(self.device).eval()

    def encode(self, crops: Sequence[FaceCrops]) -> list[EmicaCodes]:
        """The codes of a batch; each face's result does not depend on the others by more than rounding."""
        if not crops:
            return []
        batches = (np.stack([c.crop for c in crops]), np.stack([c.face for c in crops]))
        with _turn, _steady(self.threads, on_gpu=self.device.type == "cuda"), torch.inference_mode():
            outputs = self._networks(*(torch.from_numpy(batch).to(self.device) for batch in batches))
            arrays = {name: values.float().cpu().numpy() for name, values in outputs.items()}
        jaws = arrays.get("jawpose", np.zeros((len(crops), 3), np.float32))
        return [
            EmicaCodes(
                shape=arrays["shapecode"][k],
                expression=arrays["expcode"][k],
                jaw_pose=jaws[k],
                global_pose=arrays["globalpose"][k],
                camera=arrays["cam"][k],
                light=arrays["lightcode"][k],
            )
            for k in range(len(crops))
        ]


def load_emica(path: Path, device: Literal["auto", "cpu", "cuda"] = "cpu", threads: int = 1) -> Emica:
    """The networks that `emica.checkpoint.convert_checkpoint` wrote, read once per process.

    Raises:
        AssetMissingError: the file is not there.
        ConfigError: a GPU is asked for and there is none.
        DataError: the file is no converted checkpoint.
    """
    where = resolve_device(device)
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    with _loading:
        loaded = _loaded(path, stamp, str(where))
    return Emica(loaded.networks, loaded.basis, where, threads)


@lru_cache(maxsize=1)
def _loaded(path: Path, _stamp: int, device: str) -> LoadedEmica:
    # shards of one process share half a gigabyte of weights, which nothing changes
    return load_networks(path, device)


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a setting means.

    Raises:
        ConfigError: `cuda` without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("reconstruct.emica.device is cuda, but torch sees no GPU. Set it to auto or cpu.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def require_basis(asset: FaceAsset, basis: str) -> None:
    """Refuse a face model whose coefficients mean something else.

    Raises:
        BasisError: another basis, or fewer components than EMICA gives.
    """
    if asset.basis != basis:
        raise BasisError(
            f"EMICA's checkpoint gives coefficients of {basis}, the face model is {asset.topology!r} with basis "
            f"{asset.basis!r}. Add the right one with `ecavatar assets add flame FILE`, or set reconstruct.backend to "
            "landmarks."
        )
    if asset.n_shape < N_SHAPE or asset.n_expression < N_EXPRESSION:
        raise BasisError(
            f"EMICA gives {N_SHAPE} shape and {N_EXPRESSION} expression coefficients, the face model has "
            f"{asset.n_shape} and {asset.n_expression}. Convert FLAME again with `ecavatar assets add flame FILE`."
        )


class RootJoint:
    """Where FLAME's root joint lies, about which its global pose turns: linear in the coefficients."""

    def __init__(self, asset: FaceAsset) -> None:
        row = asset.joint_regressor[0].astype(np.float64)
        used = np.flatnonzero(row)
        self._rest = row[used] @ asset.template[used]
        self._by_shape = np.einsum("v,vcs->cs", row[used], asset.shape_basis[used])
        self._by_expression = np.einsum("v,vce->ce", row[used], asset.expression_basis[used])

    def at(self, shape: Float[np.ndarray, " S"], expression: Float[np.ndarray, " E"]) -> Float[np.ndarray, "3"]:
        """Position in metres."""
        by_shape = self._by_shape[:, : len(shape)] @ shape
        return self._rest + by_shape + self._by_expression[:, : len(expression)] @ expression


def image_camera(codes: EmicaCodes, root: Float[np.ndarray, "3"], box: CropBox) -> ImageCamera:
    """The camera that shows unposed points in the photograph where EMICA's own shows posed ones in the crop.

    FLAME turns a point v to R (v - root) + root. The crop shows that at ((s (x + tx) + 1) 112, (1 - s (y + ty)) 112),
    and the crop's box places the result in the photograph.

    Raises:
        NoCameraError: the scale is not positive or a number is not finite.
    """
    scale, *shift = codes.camera.astype(np.float64)
    numbers = np.concatenate([codes.camera, codes.global_pose])
    if not (np.isfinite(numbers).all() and scale > 0):
        raise NoCameraError(
            f"EMICA gives camera {codes.camera.tolist()}, which shows no face. Use a photo where one face is clearly "
            "visible from the front; if every photo fails, the checkpoint is damaged."
        )
    rotation = Rotation.from_rotvec(codes.global_pose.astype(np.float64)).as_matrix()
    half, crop_px = CROP_PX / 2, box.size_px / (CROP_PX - 1)
    seen = ((root - rotation @ root)[:2] + shift) * scale * (1, -1)
    return ImageCamera(
        rotation=rotation,
        scale_px_per_m=float(scale * half * crop_px),
        translation_px=(seen + 1) * half * crop_px + (box.left_px, box.top_px),
    )


@contextmanager
def _steady(threads: int, *, on_gpu: bool) -> Iterator[None]:
    """Torch's CPU threads set and put back; on a GPU, the same full-precision kernels every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if not on_gpu:
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
