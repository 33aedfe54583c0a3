"""Measuring chin angles, every vertex looked at, against reading the same file; and the memory that it takes.

    python -m bench.teeth_angles

A memory map of random motion of the open head is written to a temporary folder and read once, so that both sides find
it in the page cache. Reading is the quickest way there is: into one buffer of a few MB, again and again. Memory is the
peak of anonymous pages (`RssAnon`) of a process of its own, at 5,000 and at 10,000 frames. VOCASET's time is scaled
from the frames measured, not measured.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from bench._record import best_seconds, record
from ecavatar.config import RigSettings
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.rig import ChinRig
from ecavatar.seeding import stream

FRAMES, VOCASET_FRAMES = 10_000, 123_341
FACE_MODEL = Path("data/sample/assets/face/face_model.npz")
_BUFFER, _CHUNK = 4 << 20, 500
_SAMPLING_SECONDS = 0.002


def main() -> None:
    """Measure, or be the measured process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", type=Path)
    parser.add_argument("--frames", type=int)
    options = parser.parse_args()
    if options.file:
        print(_peak_mib(options.file, options.frames))
    else:
        record("teeth_angles", _measured(), packages=["numpy"])


def _measured() -> dict[str, object]:
    asset = FaceAsset.load(FACE_MODEL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npy"
        _write_frames(path, asset)
        mapped, size = np.load(path, mmap_mode="r"), path.stat().st_size
        seconds = {name: best_seconds(lambda rig=rig: rig.angles(mapped)) for name, rig in _rigs(asset).items()}
        reading = best_seconds(lambda: _read(path))
        peaks = [_peak_in_a_process(path, frames) for frames in (FRAMES // 2, FRAMES)]
    figures: dict[str, object] = {"frames": FRAMES, "file_mb": round(size / 1e6, 1)}
    figures |= {"read_seconds": round(reading, 4), "read_gb_per_second": round(size / reading / 1e9, 2)}
    for name, taken in seconds.items():
        figures[f"{name}_seconds"] = round(taken, 4)
        figures[f"{name}_against_reading"] = round(reading / taken, 2)
        figures[f"{name}_vocaset_seconds_scaled"] = round(taken * VOCASET_FRAMES / FRAMES, 2)
    return figures | {"peak_anonymous_mib_at_5000_and_10000_frames": [round(peak, 1) for peak in peaks]}


def _write_frames(path: Path, asset: FaceAsset) -> None:
    """The open head, every vertex moving by a millimetre at random."""
    draw = stream(0, "bench", "teeth_angles")
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(FRAMES, asset.n_vertices, 3))
    for first in range(0, FRAMES, _CHUNK):
        shape = (min(_CHUNK, FRAMES - first), asset.n_vertices, 3)
        out[first : first + _CHUNK] = asset.template + 1e-3 * draw.standard_normal(shape, dtype=np.float32)
    out.flush()


def _rigs(asset: FaceAsset) -> dict[str, ChinRig]:
    """One vertex each for P and Q, as the paper; and patches of the sample's radius."""
    names = {"angles": 0.0, "angles_of_patches": 5.0}
    return {
        name: ChinRig.fit(
            asset.template, asset, RigSettings(mouth="procedural", fps=30, patch_mm=radius, max_rejects=0.0)
        )
        for name, radius in names.items()
    }


def _read(path: Path) -> None:
    buffer = memoryview(bytearray(_BUFFER))
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _peak_in_a_process(path: Path, frames: int) -> float:
    command = [sys.executable, "-m", "bench.teeth_angles", "--file", str(path), "--frames", str(frames)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_mib(path: Path, frames: int) -> float:
    """Largest `RssAnon` of this process while it measures the first frames of a file."""
    rig, mapped = _rigs(FaceAsset.load(FACE_MODEL))["angles"], np.load(path, mmap_mode="r")[:frames]
    peak, is_done = _anonymous_mib(), threading.Event()

    def sample() -> None:
        nonlocal peak
        while not is_done.wait(_SAMPLING_SECONDS):
            peak = max(peak, _anonymous_mib())

    sampler = threading.Thread(target=sample)
    sampler.start()
    rig.angles(mapped)
    is_done.set()
    sampler.join()
    return max(peak, _anonymous_mib())


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


if __name__ == "__main__":
    main()
