"""EMICA: faces per second in batches against one by one, equal results, and memory while pictures stream through.

    python -m bench.emica

The networks have their real sizes and random weights. The reference of the throughput is the same call with one face at
a time, in the same run, rounds interleaved. Memory is the resident memory while `Reconstructor.faces` reads its 200th
picture over that at its 50th, photographs decoded, landmarks found and meshes aligned as in the stage.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from skimage.data import astronaut
from torch.nn import BatchNorm1d, BatchNorm2d

from bench._record import best_seconds, record
from ecavatar.config import ReconstructSettings, load_params
from ecavatar.reconstruction.emica.checkpoint import convert_checkpoint
from ecavatar.reconstruction.emica.crops import FaceCrops, face_crops
from ecavatar.reconstruction.emica.encoder import Emica, EmicaCodes, load_emica, resolve_device
from ecavatar.reconstruction.emica.networks import VARIANTS, EmicaNetworks
from ecavatar.reconstruction.images import Rgb
from ecavatar.reconstruction.landmarks import FaceLandmarker
from ecavatar.reconstruction.table import Reconstructor, Record, read_record_image
from ecavatar.sample.head import build_open_head

FACES, FACES_ON_GPU = 8, 64
ROUNDS, ROUNDS_ON_GPU = 3, 10
BATCH, BATCH_ON_GPU, THREADS = 8, 32, 2
FEW, MANY = 50, 200
CAMERA = slice(56, 59)  # behind texture (50), jaw and global pose (3 each)


def main() -> None:
    """Measure and record."""
    torch.manual_seed(0)
    is_gpu = resolve_device("auto").type == "cuda"
    with tempfile.TemporaryDirectory() as folder, FaceLandmarker() as landmarker:
        root = Path(folder)
        faces = crops(landmarker, FACES_ON_GPU if is_gpu else FACES)
        weights = write_random_emica(root / "emica.safetensors", faces[:FACES])
        emica = load_emica(weights, "auto", THREADS)
        figures = throughput(emica, faces, is_gpu=is_gpu)
        figures |= memory(root, weights, landmarker)
    record("emica", figures, ["numpy", "scipy", "mediapipe", "safetensors"])


def write_random_emica(path: Path, faces: Sequence[FaceCrops]) -> Path:
    """Networks of the published sizes as a converted checkpoint, normalised by `faces`; their camera sees a face."""
    networks = EmicaNetworks(VARIANTS[0]).train()
    for module in networks.modules():
        if isinstance(module, BatchNorm2d | BatchNorm1d):
            module.momentum = 1.0  # the statistics of these faces, so that signals neither vanish nor explode
    with torch.no_grad():
        networks(*(torch.from_numpy(np.stack(part)) for part in ([f.crop for f in faces], [f.face for f in faces])))
        networks.deca_encoder.encoder.layers[2].bias[CAMERA] = torch.tensor([8.0, 0.0, 0.0])
    source = path.with_suffix(".pt")
    torch.save(networks.state_dict(), source)
    convert_checkpoint(source, path)
    source.unlink()
    return path


def crops(landmarker: FaceLandmarker, count: int) -> list[FaceCrops]:
    """One portrait in different crops and brightness."""
    found = landmarker.detect(astronaut())
    if found is None:
        raise SystemExit("no face found in scikit-image's astronaut")
    generator = np.random.default_rng(0)
    shaken = [found.ibug68_px + generator.normal(size=(68, 2)) * 4 for _ in range(count)]
    shades = [(astronaut() * share).astype(np.uint8) for share in generator.uniform(0.3, 1, count)]
    return [face_crops(shade, points) for shade, points in zip(shades, shaken, strict=True)]


def throughput(emica: Emica, faces: Sequence[FaceCrops], *, is_gpu: bool) -> dict[str, object]:
    """Seconds per face both ways, their ratio, and how far results differ."""
    batch = BATCH_ON_GPU if is_gpu else BATCH
    rounds = ROUNDS_ON_GPU if is_gpu else ROUNDS

    def batched() -> list[EmicaCodes]:
        return [c for first in range(0, len(faces), batch) for c in emica.encode(faces[first : first + batch])]

    def alone() -> list[EmicaCodes]:
        return [code for face in faces for code in emica.encode([face])]

    together, one_by_one = _numbers(batched()), _numbers(alone())  # also warms both up
    seconds: dict[str, list[float]] = {"batched": [], "alone": []}
    for _ in range(rounds):
        seconds["batched"].append(best_seconds(batched, 1))
        seconds["alone"].append(best_seconds(alone, 1))
    best = {name: min(values) / len(faces) for name, values in seconds.items()}
    return {
        "faces_per_batch": batch,
        "one_by_one_s_per_face": round(best["alone"], 4),
        "batched_s_per_face": round(best["batched"], 4),
        "batched_over_one_by_one": round(best["alone"] / best["batched"], 2),
        "largest_difference": float(f"{np.abs(together - one_by_one).max():.1e}"),
        "spread_between_faces": float(f"{one_by_one.std(axis=0).mean():.1e}"),
    }


def memory(root: Path, weights: Path, landmarker: FaceLandmarker) -> dict[str, object]:
    """Resident memory while pictures stream through the backend."""
    Image.fromarray(astronaut()).resize((1024, 1024)).save(root / "photo.png")
    records = pa.table({"item_id": [f"{k:03d}" for k in range(MANY)], "path": ["photo.png"] * MANY})
    asset = replace(build_open_head(), basis="flame2020")
    reconstructor, open_image = Reconstructor(asset, settings(), weights), read_record_image(root)
    resident: dict[int, int] = {}

    def read(item: Record) -> Rgb:
        number = int(str(item["item_id"])) + 1
        if number in (FEW, MANY):
            resident[number] = _resident_bytes()
        return open_image(item)

    found = reconstructor.faces(records, read, landmarker)
    if found.table.num_rows != MANY:
        raise SystemExit(f"{MANY - found.table.num_rows} of {MANY} faces were rejected: {found.rejects[0]}")
    return {
        f"resident_mb_at_{FEW}": resident[FEW] >> 20,
        f"resident_mb_at_{MANY}": resident[MANY] >> 20,
        "memory_growth": round(resident[MANY] / resident[FEW], 3),
    }


def settings() -> ReconstructSettings:
    """The sample profile's, with EMICA as backend."""
    sample = load_params(Path("params.yaml")).sample.reconstruct
    emica = sample.emica.model_copy(update={"device": "auto", "batch": BATCH, "threads": THREADS})
    return sample.model_copy(update={"backend": "emica", "emica": emica})


def _resident_bytes() -> int:
    """Memory that this process holds now (Linux)."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _numbers(codes: Sequence[EmicaCodes]) -> np.ndarray:
    """All outputs, one row per face."""
    names = ("shape", "expression", "jaw_pose", "global_pose", "camera", "light")
    return np.stack([np.concatenate([getattr(face, name) for name in names]) for face in codes])


if __name__ == "__main__":
    main()
