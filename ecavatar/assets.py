"""What the `full` profile needs and cannot make itself: who grants it, where it lies, how it is added.

Only files that the user has obtained are handled; nothing is downloaded. An added asset is copied whole or not at all,
and a small json beside it records its fingerprint and licence.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ecavatar.errors import AssetMissingError, ConfigError, DataError, EcavatarError
from ecavatar.face.model import FaceAsset
from ecavatar.storage.files import atomic_path, sha256_file, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One thing the user supplies."""

    kind: str
    """Name on the command line."""
    what: str
    grantor: str
    """Who grants it, and where to ask."""
    licence: str
    path: str
    """Where it lies below data/<profile>/."""
    needed_by: str
    """Stages that read it; "" when none does yet."""
    without: str
    """What works while it is missing."""
    files: tuple[str, ...] = ()
    """For a folder: names that must be in it, alternatives separated by "|"; none: any file. For a file: empty."""
    is_folder: bool = False
    is_corpus: bool = False
    """Too large to copy: the user puts the folder where it belongs."""
    converter: str = ""
    """What still has to be built before `add` can take the file; "" when it can now."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of known published files -> what they are."""

    def find(self, data: Path) -> Path | None:
        """The asset below the profile's data folder, or None; a folder counts when its files are there."""
        path = data / self.path
        if self.is_folder:
            return path if path.is_dir() and not self.problems(path) else None
        return path if path.is_file() else None

    def problems(self, path: Path) -> list[str]:
        """What a folder at `path` lacks, one phrase each."""
        if not self.files:
            return [] if any(path.iterdir()) else ["any file"]
        return [name for name in self.files if not any((path / part).exists() for part in name.split("|"))]

    def how_to_add(self, data: Path) -> str:
        """One sentence that says how the user gets this asset to where it belongs."""
        place, start = data / self.path, f"get {self.what} from {self.grantor}"
        if self.is_corpus:
            return f"{start}, and put the folder at {place} (`mv` or a bind mount, not a link)."
        if self.converter:
            return f"not in this version, which lacks {self.converter}; {start}, and keep it."
        thing = "FOLDER" if self.is_folder else "FILE"
        return f"{start}, then `ecavatar assets add {self.kind} {thing}` (goes to {place})."


_FLAME_SITE = "the Max Planck Institute (flame.is.tue.mpg.de, registration)"
_RESEARCH = "non-commercial research, not to be passed on"

ASSETS: tuple[Asset, ...] = (
    Asset(
        kind="affectnet",
        what="AffectNet (2017 lists and images)",
        grantor="Mohammad Mahoor's group (mohammadmahoor.com, written request)",
        licence=_RESEARCH,
        path="raw/affectnet",
        needed_by="select_images, reconstruct_faces",
        without="the sample profile's rendered faces",
        is_folder=True,
        is_corpus=True,
    ),
    Asset(
        kind="vocaset",
        what="VOCASET (data_verts.npy, raw_audio_fixed.pkl, subj_seq_to_idx.pkl, templates.pkl)",
        grantor="the Max Planck Institute (voca.is.tue.mpg.de, registration)",
        licence=_RESEARCH,
        path="raw/vocaset",
        needed_by="rig_mouths, train_selftalk, track_emotions, predict, benchmark",
        without="the sample profile's spoken sentences",
        files=("data_verts.npy", "raw_audio_fixed.pkl", "subj_seq_to_idx.pkl", "templates.pkl"),
        is_folder=True,
        is_corpus=True,
    ),
    Asset(
        kind="ravdess",
        what="RAVDESS (speech, audio and video, Actor_* folders)",
        grantor="its authors (doi.org/10.5281/zenodo.1188976)",
        licence="CC BY-NC-SA 4.0",
        path="raw/ravdess",
        needed_by="reconstruct_faces, track_emotions, predict, benchmark",
        without="the sample profile's twin of it",
        is_folder=True,
        is_corpus=True,
    ),
    Asset(
        kind="mead",
        what="MEAD (part 0: video and audio folders of each subject)",
        grantor="its authors (wywu.github.io/projects/MEAD, request)",
        licence=_RESEARCH,
        path="raw/mead",
        needed_by="reconstruct_faces, track_emotions, predict, benchmark",
        without="the sample profile's twin of it",
        is_folder=True,
        is_corpus=True,
    ),
    Asset(
        kind="face-model",
        what="a face model in our npz schema",
        grantor="a conversion of FLAME (kind flame), or the sample profile's open head (CC0)",
        licence="that of the model it was converted from",
        path="assets/face_model.npz",
        needed_by="every stage from reconstruct_faces on",
        without="the sample profile's open head",
    ),
    Asset(
        kind="flame",
        what="FLAME (generic_model.pkl, flame2023.pkl or flame2023_Open.pkl)",
        grantor=_FLAME_SITE,
        licence="FLAME licence, non-commercial research; FLAME 2023 Open: CC BY 4.0",
        path="assets/face_model.npz",
        needed_by="every stage from reconstruct_faces on",
        without="the sample profile's open head",
        converter="the converter from FLAME's pickle to face_model.npz",
        fingerprints={
            "efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b": "FLAME 2020 generic_model.pkl",
            "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0": "FLAME 2023 flame2023.pkl (with jaw)",
            "a6b4c3dc15d569d98136a1e548b6fe532eb2830ca12a4f0d4b3a5dba8ee87a91": "FLAME2023Open.zip: unpack it and give "
            "the flame2023_Open.pkl in it",
            "e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623": "FLAME 2023 Open flame2023_Open.pkl",
        },
    ),
    Asset(
        kind="flame-masks",
        what="FLAME's vertex masks (FLAME_masks.pkl)",
        grantor=_FLAME_SITE,
        licence="FLAME licence, non-commercial research",
        path="assets/flame_masks.npz",
        needed_by="",
        without="regions of the open head",
        converter="the reader of FLAME's own regions",
    ),
    Asset(
        kind="emica",
        what="EMICA's checkpoint",
        grantor="the Max Planck Institute (emica/inferno release, registration)",
        licence=_RESEARCH,
        path="assets/emica.safetensors",
        needed_by="",
        without="reconstruction by MediaPipe landmarks",
        converter="the EMICA backend of reconstruct_faces",
    ),
    Asset(
        kind="hubert",
        what="a HuBERT model with a CTC head as a transformers folder (facebook/hubert-large-ls960-ft)",
        grantor="Meta (the model's public page)",
        licence="Apache-2.0",
        path="assets/hubert",
        needed_by="train_selftalk, predict",
        without="the sample profile's small HuBERT",
        files=("config.json", "model.safetensors|pytorch_model.bin"),
        is_folder=True,
    ),
    Asset(
        kind="emotion2vec",
        what="an emotion2vec model as a funasr folder (emotion2vec_plus_large or _base)",
        grantor="its authors (the model's public page)",
        licence="see the model's page",
        path="assets/emotion2vec",
        needed_by="track_emotions",
        without="the sample profile's small emotion2vec; given emotion and level",
        files=("config.yaml", "model.pt", "tokens.txt"),
        is_folder=True,
    ),
)
"""Everything the user may supply, in the order of the pipeline."""


def asset_of_kind(kind: str) -> Asset:
    """The asset called `kind`.

    Raises:
        ConfigError: there is none; the message lists the kinds.
    """
    for asset in ASSETS:
        if asset.kind == kind:
            return asset
    raise ConfigError(f"unknown kind {kind!r}; expected one of: {', '.join(asset.kind for asset in ASSETS)}.")


def missing_for_full(data: Path) -> list[Asset]:
    """Assets without which the pipeline cannot run on the user's own data, that are not below `data`.

    Args:
        data: the profile's data folder (data/full).
    """
    missing = [asset for asset in ASSETS if asset.needed_by and asset.find(data) is None]
    return [asset for asset in missing if asset.kind != "face-model"]  # FLAME is the usual way to the same file


def add_asset(kind: str, source: Path, data: Path) -> Path:
    """Check a user's file or folder, copy it to where the pipeline looks for it, and record what it is.

    Args:
        kind: one of `ASSETS`.
        source: the file or folder as the user obtained it.
        data: the profile's data folder (data/full).

    Returns:
        Where it now lies; `<name>.asset.json` beside it holds fingerprint, size, licence and grantor.

    Raises:
        ConfigError: unknown kind, or one that cannot be added (yet); the message says what to do instead.
        AssetMissingError: `source` is not there.
        DataError: `source` is not what this kind is.
    """
    asset = asset_of_kind(kind)
    if asset.is_corpus:
        raise ConfigError(f"{kind} is a corpus and is not copied: {asset.how_to_add(data)}")
    if not source.exists():
        raise AssetMissingError(f"{source} not found. Give the path of {asset.what}; it comes from {asset.grantor}.")
    _check_source(asset, source)
    target = data / asset.path
    with atomic_path(target) as temporary:
        if asset.is_folder:
            shutil.copytree(source, temporary)
        else:
            shutil.copyfile(source, temporary)
    write_json(target.with_name(f"{target.name}.asset.json"), _record(asset, source, target))
    return target


def _check_source(asset: Asset, source: Path) -> None:
    if source.is_dir() != asset.is_folder:
        wanted = "folder" if asset.is_folder else "file"
        raise DataError(f"{source} is not a {wanted}; {asset.kind} is {asset.what}.")
    if asset.is_folder and (lacking := asset.problems(source)):
        raise DataError(f"{source} lacks {', '.join(lacking)}; {asset.kind} is {asset.what}.")
    if asset.converter:
        known = asset.fingerprints.get(sha256_file(source))
        seen = f"It was recognised as {known}. " if known else ""
        raise ConfigError(
            f"{source} cannot be added yet: this version lacks {asset.converter}. {seen}"
            f"Nothing was copied; keep the file. Until then: {asset.without}."
        )
    if asset.kind == "face-model":
        try:
            FaceAsset.load(source)
        except EcavatarError as error:
            raise DataError(f"{source} is not a face model in our schema: {error}") from None


def _record(asset: Asset, source: Path, target: Path) -> dict[str, object]:
    files = sorted(path for path in target.rglob("*") if path.is_file()) if asset.is_folder else [target]
    sums = [sha256_file(file) for file in files]
    names = [file.relative_to(target).as_posix() for file in files] if asset.is_folder else [source.name]
    listing = "".join(f"{digest} {name}\n" for digest, name in zip(sums, names, strict=True))
    return {
        "kind": asset.kind,
        "what": asset.what,
        "licence": asset.licence,
        "grantor": asset.grantor,
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": hashlib.sha256(listing.encode()).hexdigest() if asset.is_folder else sums[0],
        "files": dict(zip(names, sums, strict=True)),
    }
