"""What the `full` profile needs and cannot make itself: who grants it, where it lies, how it is added.

Only files that the user has obtained are handled; nothing is downloaded. An added asset is copied or converted whole or
not at all, and a small json beside it records its fingerprint and licence. FLAME comes in several files; the face model
is put together as soon as those it needs are there, in whatever order they were added.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ecavatar.errors import AssetMissingError, ConfigError, DataError, EcavatarError
from ecavatar.face.flame.parts import PART_FILES, REQUIRED_PARTS, missing_parts, write_flame_part
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.model import MouthMesh
from ecavatar.mouth.mouth_file import convert_mouth
from ecavatar.storage.files import atomic_path, read_json, sha256_file, write_json

Convert = Callable[[Path, Path, str | None], dict[str, object]]
"""Converts a user's file into data/<profile>/assets, given the basis the user names; returns facts for the record."""


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
    """Stages that read it; "" where the pipeline does without it."""
    without: str
    """What works while it is missing."""
    form: Literal["file", "folder", "corpus", "collection"] = "file"
    """A corpus is a folder too large to copy: the user puts it where it belongs. A collection is a folder of converted
    files, each named by its content's hash, of which params.yaml names one."""
    files: tuple[str, ...] = ()
    """For a folder: names that must be in it, alternatives separated by "|"; none: any file. For a file: empty."""
    convert: Convert | None = None
    """How a file is converted; None: it is copied."""
    part_of: str = ""
    """Kind that this one is put together into."""
    is_optional: bool = False
    """A part without which the whole is still made."""
    backend: str = ""
    """The one backend of reconstruct_faces that needs it; "" where it does not depend on that."""

    @property
    def is_folder(self) -> bool:
        """Whether the user has a folder of it, not a file."""
        return self.form in ("folder", "corpus")

    def find(self, data: Path) -> Path | None:
        """The asset below the profile's data folder, or None; a folder counts when its files are there."""
        path = data / self.path
        if self.form == "collection":
            return path if path.is_dir() and any(path.glob("*.npz")) else None
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
        if self.form == "corpus":
            return f"{start}, and put the folder at {place} (`mv` or a bind mount, not a link)."
        thing = "FOLDER" if self.is_folder else "FILE"
        if parts := [asset.kind for asset in ASSETS if asset.part_of == self.kind and not asset.is_optional]:
            return (
                f"it is made of {', '.join(parts)} as soon as you have added them; or take one that was made "
                f"elsewhere: `ecavatar assets add {self.kind} {thing}` (goes to {place})."
            )
        return f"{start}, then `ecavatar assets add {self.kind} {thing}` (goes to {place})."


def _convert_flame(kind: str, source: Path, folder: Path, basis: str | None) -> dict[str, object]:
    facts = write_flame_part(kind, source, folder, basis)
    if kind == "flame":
        facts["licence"] = _OPEN_LICENCE if facts["basis"] == "flame2023-open" else _FLAME_LICENCE
    return facts


def _convert_face_model(source: Path, folder: Path, _basis: str | None) -> dict[str, object]:
    try:
        asset = FaceAsset.load(source)
    except EcavatarError as error:
        raise DataError(f"{source} is not a face model in our schema: {error}") from None
    asset.save(folder / "face_model.npz")
    return {"topology": asset.topology, "basis": asset.basis}


def _convert_emica(source: Path, folder: Path, _basis: str | None) -> dict[str, object]:
    from ecavatar.reconstruction.emica.checkpoint import convert_checkpoint  # torch takes seconds to import

    return convert_checkpoint(source, folder / "emica.safetensors")


def _convert_mouth(source: Path, folder: Path, _basis: str | None) -> dict[str, object]:
    made = convert_mouth(source, None, folder)
    mouth = MouthMesh.load(made)
    return {"file": made.name, "vertices": len(mouth.vertices), "faces": len(mouth.faces)}


_FACE_FOLDER = "assets/face"  # all that reconstruction reads: one dependency of its stage
_FLAME_SITE = "the Max Planck Institute (flame.is.tue.mpg.de, registration)"
_FLAME_LICENCE = "FLAME licence, non-commercial research"
_OPEN_LICENCE = "CC BY 4.0"
_RESEARCH = "non-commercial research, not to be passed on"


def _corpus(
    kind: str, what: str, grantor: str, licence: str, needed_by: str, without: str, files: tuple[str, ...] = ()
) -> Asset:
    return Asset(
        kind=kind,
        what=what,
        grantor=grantor,
        licence=licence,
        path=f"raw/{kind}",
        needed_by=needed_by,
        without=without,
        form="corpus",
        files=files,
    )


def _flame_part(
    kind: str, what: str, without: str, *, licence: str = _FLAME_LICENCE, grantor: str = _FLAME_SITE, backend: str = ""
) -> Asset:
    return Asset(
        kind=kind,
        what=what,
        grantor=grantor,
        licence=licence,
        path=f"{_FACE_FOLDER}/{PART_FILES[kind]}",
        needed_by="",  # stages read the face model
        without=without,
        convert=partial(_convert_flame, kind),
        part_of="face-model",
        is_optional=kind not in REQUIRED_PARTS,
        backend=backend,
    )


ASSETS: tuple[Asset, ...] = (
    _corpus(
        "affectnet",
        "AffectNet (lists and images as they ship)",
        "Mohammad Mahoor's group (mohammadmahoor.com, written request)",
        _RESEARCH,
        "select_images, reconstruct_faces",
        "the sample profile's rendered faces",
    ),
    _corpus(
        "vocaset",
        "VOCASET (its four raw files, or templates.pkl with the folders vertices_npy and wav)",
        "the Max Planck Institute (voca.is.tue.mpg.de, registration)",
        _RESEARCH,
        "rig_mouths, track_emotions, predict, benchmark",
        "the sample profile's spoken sentences",
        (
            "templates.pkl",
            "data_verts.npy|vertices_npy",
            "raw_audio_fixed.pkl|wav",
            "subj_seq_to_idx.pkl|vertices_npy",
        ),
    ),
    _corpus(
        "ravdess",
        "RAVDESS (speech, audio and video, Actor_* folders)",
        "its authors (doi.org/10.5281/zenodo.1188976)",
        "CC BY-NC-SA 4.0",
        "reconstruct_faces, track_emotions, predict, benchmark",
        "the sample profile's twin of it",
    ),
    _corpus(
        "mead",
        "MEAD (part 0: video and audio folders of each subject)",
        "its authors (wywu.github.io/projects/MEAD, request)",
        _RESEARCH,
        "reconstruct_faces, track_emotions, predict, benchmark",
        "the sample profile's twin of it",
    ),
    Asset(
        kind="face-model",
        what="a face model in our npz schema",
        grantor="your FLAME files (kinds flame, flame-masks, flame-landmarks), or the sample profile's open head (CC0)",
        licence="that of the model it was converted from",
        path=f"{_FACE_FOLDER}/face_model.npz",
        needed_by="every stage from reconstruct_faces on",
        without="the sample profile's open head",
        convert=_convert_face_model,
    ),
    _flame_part(
        "flame",
        "FLAME's generic model (generic_model.pkl, flame2023.pkl, flame2023_no_jaw.pkl, flame2023_Open.pkl, or an npz)",
        "the sample profile's open head",
        licence=f"{_FLAME_LICENCE}; FLAME 2023 Open: {_OPEN_LICENCE}",
    ),
    _flame_part("flame-masks", "FLAME's vertex masks (FLAME_masks.pkl)", "regions of the open head"),
    _flame_part(
        "flame-landmarks",
        "FLAME's 68 landmarks (flame_static_embedding_68.pkl, or DECA's landmark_embedding.npy, or both "
        "flame_static_embedding.pkl and flame_dynamic_embedding.npy)",
        "landmarks of the open head",
        grantor=f"{_FLAME_SITE}, or DECA's public repository",
    ),
    _flame_part(
        "flame-mediapipe",
        "MediaPipe's landmarks on FLAME (mediapipe_landmark_embedding.npz)",
        "reconstruction by EMICA (reconstruct.backend: emica); it also sees expressions better, for FLAME has no units "
        "that MediaPipe's scores could move",
        backend="landmarks",
    ),
    _flame_part(
        "flame-uv",
        "FLAME's texture coordinates (head_template.obj or FLAME_texture.npz)",
        "all stages, none of which reads textures",
        licence="FLAME texture space: CC BY-NC-SA 4.0",
    ),
    Asset(
        kind="emica",
        what="EMICA's checkpoint (the training framework's .ckpt, or the repackaged .pt)",
        grantor="the Max Planck Institute (emica/inferno release, registration)",
        licence=_RESEARCH,
        path=f"{_FACE_FOLDER}/emica.safetensors",
        needed_by="reconstruct_faces with backend emica",
        without="reconstruction by MediaPipe landmarks (reconstruct.backend: landmarks)",
        convert=_convert_emica,
        backend="emica",
    ),
    Asset(
        kind="mouth",
        what="a mesh of teeth, gums and tongue (.obj or .ply, part labels in its groups or beside it)",
        grantor="your modeller, or FaceGen (facegen.com) for the paper's own",
        licence="as its maker says",
        path="assets/mouth",
        needed_by="",
        without="the open mouth, which the pipeline makes (rig.mouth: procedural)",
        form="collection",
        convert=_convert_mouth,
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
        form="folder",
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
        form="folder",
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


def missing_for_full(data: Path, backend: str = "emica") -> list[Asset]:
    """Assets without which the pipeline cannot run on the user's own data, that are not below `data`.

    Args:
        data: the profile's data folder (data/full).
        backend: `reconstruct.backend` of the profile, emica or landmarks.
    """
    missing = [asset for asset in ASSETS if asset.needed_by and asset.find(data) is None]
    if all(asset.kind != "face-model" for asset in missing):
        return [asset for asset in missing if asset.backend in ("", backend)]
    kinds = {*missing_parts(data / _FACE_FOLDER)} or {"face-model"}  # FLAME's files are the usual way to the model
    if not (data / _FACE_FOLDER / PART_FILES["flame-mediapipe"]).is_file():
        kinds |= {"flame-mediapipe"}
    kinds |= {asset.kind for asset in missing if asset.kind != "face-model"}
    return [asset for asset in ASSETS if asset.kind in kinds and asset.backend in ("", backend)]


def add_asset(kind: str, source: Path, data: Path, basis: str | None = None) -> Path:
    """Check a user's file or folder, copy or convert it to where the pipeline looks for it, and record what it is.

    Args:
        kind: one of `ASSETS`.
        source: the file or folder as the user obtained it.
        data: the profile's data folder (data/full).
        basis: for kind flame, what its coefficients mean, where the file does not tell
            (`ecavatar.face.flame.model_file.BASES`).

    Returns:
        Where it now lies; `<name>.asset.json` beside it holds fingerprint and size of the user's file, licence,
        grantor, and what the conversion found. `what_is_next` says what is still missing.

    Raises:
        ConfigError: unknown kind, one that is not copied, or a FLAME model of unknown basis; the message says what to
            do instead.
        BasisError: `basis` contradicts the file.
        AssetMissingError: `source` is not there.
        DataError: `source` is not what this kind is.
    """
    asset = asset_of_kind(kind)
    if asset.form == "corpus":
        raise ConfigError(f"{kind} is a corpus and is not copied: {asset.how_to_add(data)}")
    if basis is not None and kind != "flame":
        raise ConfigError(f"--basis {basis} says what the coefficients of a FLAME model mean; kind {kind} has none.")
    if not source.exists():
        raise AssetMissingError(f"{source} not found. Give the path of {asset.what}; it comes from {asset.grantor}.")
    _check_source(asset, source)
    target = data / asset.path
    if target.resolve().parent.is_relative_to(source.resolve()):
        raise DataError(f"{source} holds {target}, where it would be copied to. Give the folder of {kind} alone.")
    facts: dict[str, object] = {}
    if asset.form == "collection" and asset.convert is not None:
        facts = asset.convert(source, target, basis)
        target = target / str(facts["file"])
    elif asset.convert is not None:
        facts = _with_earlier(asset, asset.convert(source, target.parent, basis), data)
    else:
        _copy(source, target)
    write_json(_record_path(target), _record(asset, source) | facts)
    if asset.part_of and not missing_parts(target.parent):
        write_json(_record_path(data / asset_of_kind(asset.part_of).path), _face_model_record(data))
    return target


def what_is_next(kind: str, data: Path) -> str:
    """What the user should know after adding an asset: what the face model still lacks, what does not fit it; or "".

    Args:
        kind: what was added.
        data: the profile's data folder (data/full).
    """
    notes = [_face_model_state(data)] if kind in PART_FILES else []
    if kind == "mouth":
        notes.append("To use it, name that file in params.yaml as rig.mouth.")
    if kind == "flame" and _recorded(kind, data).get("basis_known_by") == "name":
        basis = _recorded(kind, data)["basis"]
        notes.append(f"It was taken for {basis} because of its name; if it is not, add it again with --basis.")
    emica, model = (_recorded(name, data).get("basis") for name in ("emica", "face-model"))
    if kind in ("emica", *PART_FILES) and emica and model and emica != model:
        notes.append(
            f"EMICA's checkpoint gives coefficients of {emica}, the face model's are of {model}: reconstruct_faces "
            f"will stop. Add the FLAME model of {emica}."
        )
    return "\n".join(notes)


def _face_model_state(data: Path) -> str:
    """What the face model was made of, or still lacks."""
    folder, place = data / _FACE_FOLDER, data / asset_of_kind("face-model").path
    if missing := missing_parts(folder):
        needs = [f"  {part}: {how}" for part, how in missing.items()]
        return "\n".join([f"{place} is made as soon as these are there, too:", *needs])
    there = [part for part, name in PART_FILES.items() if (folder / name).is_file()]
    absent = [asset_of_kind(part) for part in PART_FILES if part not in there]
    sentences = [f"{place} was made of {', '.join(there)}.", *(f"Without {it.kind}: {it.without}." for it in absent)]
    return " ".join(sentences)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        if source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copyfile(source, temporary)


def _check_source(asset: Asset, source: Path) -> None:
    if source.is_dir() != asset.is_folder:
        wanted = "folder" if asset.is_folder else "file"
        raise DataError(f"{source} is not a {wanted}; {asset.kind} is {asset.what}.")
    if asset.is_folder and (lacking := asset.problems(source)):
        raise DataError(f"{source} lacks {', '.join(lacking)}; {asset.kind} is {asset.what}.")
    if asset.is_folder and (others := [path for path in source.rglob("*") if not _is_copied(path)]):
        raise DataError(f"{source} holds {others[0].name}, a link to no file or a device. Give a folder of files.")


def _is_copied(path: Path) -> bool:
    """Files, links to files (as download caches have them) and folders; a linked folder may lead anywhere."""
    return path.is_file() or (path.is_dir() and not path.is_symlink())


def _record(asset: Asset, source: Path) -> dict[str, object]:
    """Who grants it, and fingerprints of what the user brought."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if asset.is_folder else [source]
    sums = [sha256_file(file) for file in files]
    names = [file.relative_to(source).as_posix() if asset.is_folder else file.name for file in files]
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


def _record_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.asset.json")


def _recorded(kind: str, data: Path) -> dict[str, Any]:  # Any: json
    """The record of an asset that was added, or an empty one."""
    path = _record_path(data / asset_of_kind(kind).path)
    return read_json(path) if path.is_file() else {}


def _with_earlier(asset: Asset, facts: dict[str, object], data: Path) -> dict[str, object]:
    """Facts that name the landmark files added before, for landmarks are added to those that are there."""
    record = _recorded(asset.kind, data)
    if asset.kind != "flame-landmarks" or not record:
        return facts
    return facts | {"earlier_files": record.get("earlier_files", {}) | record["files"]}


def _face_model_record(data: Path) -> dict[str, object]:
    """The record of the face model put together from FLAME's files."""
    model = _recorded("flame", data)
    parts = {part: record["sha256"] for part in PART_FILES if (record := _recorded(part, data))}
    target = data / asset_of_kind("face-model").path
    return {
        "kind": "face-model",
        "what": f"FLAME ({model['basis']}) in our npz schema",
        "licence": model["licence"],
        "grantor": model["grantor"],
        "topology": model["topology"],
        "basis": model["basis"],
        "made_of": parts,
        "bytes": target.stat().st_size,
        "sha256": sha256_file(target),
    }
