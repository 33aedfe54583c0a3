"""The `ecavatar` command line: a thin face of the library for people with their own files.

Exit codes: 0 done, 2 the user's mistake (one message, no traceback), 1 a bug.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from ecavatar.assets import ASSETS, add_asset, asset_of_kind, what_is_next
from ecavatar.config import ExportSettings, ReconstructSettings, RigSettings, SelectSettings, load_params
from ecavatar.doctor import Diagnosis, diagnose
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import ConfigError, EcavatarError

if TYPE_CHECKING:
    from ecavatar.face.model import FaceAsset
    from ecavatar.mouth.model import MouthMesh

app = typer.Typer(
    help="Talking 3D faces with emotion from one photo and speech.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
assets_app = typer.Typer(help="Licensed and large files that you supply.", no_args_is_help=True, rich_markup_mode=None)
emolib_app = typer.Typer(help="Emolib releases: emotional faces.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(assets_app, name="assets")
app.add_typer(emolib_app, name="emolib")

DataFolder = Annotated[Path, typer.Option("--data", help="Data folder of the profile that uses them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print json for programs.")]
ProfileName = Annotated[
    str, typer.Option("--profile", help="Whose models, data/<profile>, and whose section of the settings file.")
]
ParamsFile = Annotated[Path, typer.Option("--params", help="Settings file.")]
Release = Annotated[Path, typer.Argument(help="Folder of a release, Emolib or VOCATeeth.")]

_LINE_EVERY_SECONDS = 30.0
_SHOWN = 10


class LevelRule(StrEnum):
    """How arousal becomes three levels."""

    equal = "equal"
    quantile = "quantile"
    balanced = "balanced"


class Backend(StrEnum):
    """What reconstructs faces."""

    landmarks = "landmarks"
    emica = "emica"


class Materialised(StrEnum):
    """How whole heads are written out."""

    npy = "npy"
    parquet = "parquet"


class Meshes(StrEnum):
    """How a release holds meshes."""

    none = "none"
    float32 = "float32"
    int16 = "int16"


@app.command(epilog="Example: ecavatar doctor --json")
def doctor(*, as_json: AsJson = False, data: DataFolder = Path("data/full")) -> None:
    """Say what is installed, which files are missing, what needs them and what works without."""
    diagnosis = diagnose(data)
    if as_json:
        print(json.dumps(diagnosis.to_json(), indent=1, sort_keys=True))
    else:
        _print_diagnosis(diagnosis)


@assets_app.command("list", epilog="Example: ecavatar assets list")
def list_assets(*, as_json: AsJson = False, data: DataFolder = Path("data/full")) -> None:
    """List every file you may supply: what it is, who grants it, where it belongs, what needs it."""
    diagnosis = diagnose(data)
    if as_json:
        print(json.dumps(diagnosis.to_json()["assets"], indent=1, sort_keys=True))
        return
    for asset in ASSETS:
        print(f"{asset.kind}: {'found' if asset.find(data) else 'missing'}, {data / asset.path}")
        print(f"    what        {asset.what}")
        print(f"    granted by  {asset.grantor}; {asset.licence}")
        print(f"    needed by   {asset.needed_by or 'nothing by itself'}; without it: {asset.without}")
        print(f"    to add      {asset.how_to_add(data)}")


@assets_app.command("add", epilog="Example: ecavatar assets add hubert downloads/hubert-large-ls960-ft")
def add(
    kind: Annotated[str, typer.Argument(help="One of: " + ", ".join(asset.kind for asset in ASSETS) + ".")],
    file: Annotated[Path, typer.Argument(help="The file or folder as you obtained it.")],
    *,
    basis: Annotated[
        str | None, typer.Option(help="Which FLAME a model file is, where the file does not tell, e.g. flame2020.")
    ] = None,
    data: DataFolder = Path("data/full"),
) -> None:
    """Check a file or folder of yours and copy or convert it to where the pipeline looks for it."""
    target = add_asset(kind, file, data, basis)
    print(f"{kind}: added as {target}; fingerprint and licence are in {target.name}.asset.json beside it.")
    if after := what_is_next(kind, data):
        print(after)


@app.command(epilog="Example: ecavatar select downloads/AffectNet --out lists/index.parquet --per-level 500")
def select(
    affectnet: Annotated[Path, typer.Argument(help="AffectNet as it ships: 2017, 8-class mini, or AffectNet+.")],
    *,
    out: Annotated[Path, typer.Option(help="The list to write (Parquet); its companions go beside it.")],
    per_level: Annotated[int, typer.Option(min=1, help="Images per category and level.")] = 500,
    levels: Annotated[
        LevelRule, typer.Option(help="How arousal becomes levels; equal is the paper's.")
    ] = LevelRule.equal,
    pool: Annotated[int, typer.Option(min=0, help="Further non-neutral images, none of them in the list.")] = 0,
    near_duplicate_bits: Annotated[
        int, typer.Option(min=0, max=64, help="Images whose 256-bit hashes differ in no more bits count as one.")
    ] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    annotations_only: Annotated[
        bool, typer.Option("--annotations-only", help="Open no image: nothing is checked or compared.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Draw images of each emotion and intensity level from AffectNet."""
    from ecavatar.emolib.draw import ImageCheck, inspect_images
    from ecavatar.emolib.selection import select_folder

    settings = SelectSettings(
        per_level=per_level, levels=levels.value, near_duplicate_bits=near_duplicate_bits, pool=pool, max_rejects=1.0
    )
    with _progress("images opened") as report:
        opened = 0

        def check(paths: Sequence[Path]) -> list[ImageCheck]:
            nonlocal opened
            found = []
            for path in paths:
                found += inspect_images([path])
                opened += 1
                report(opened, opened + len(paths) - len(found))
            return found

        selection = select_folder(affectnet, out, settings, seed, annotations_only=annotations_only, check=check)
    _answer(
        {"images": len(selection.listed), "pool": len(selection.pooled), "rejects": len(selection.rejects)},
        f"{out}: {len(selection.listed)} images, {len(selection.pooled)} in the pool, {len(selection.rejects)} rejects "
        "(reasons in rejects.parquet beside it)",
        as_json=as_json,
    )


@app.command(epilog="Example: ecavatar reconstruct lists/index.parquet --images downloads/AffectNet --out faces")
def reconstruct(
    index: Annotated[Path, typer.Argument(help="List of `ecavatar select`, or any Parquet with item_id and path.")],
    *,
    images: Annotated[Path, typer.Option(help="Folder that the list's paths are relative to.")],
    out: Annotated[Path, typer.Option(help="Folder for the faces (part-*.parquet) and rejects.parquet.")],
    backend: Annotated[Backend | None, typer.Option(help="Default: as the settings file says.")] = None,
    profile: ProfileName = "sample",
    params: ParamsFile = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Find the face of every image in a list; started again after it was stopped, it goes on."""
    from ecavatar.emolib.redraw import reconstruct_index

    settings = _reconstruct_settings(params, profile, backend)
    with _progress("faces") as report:
        filling = reconstruct_index(
            index, images, out, _face_model(profile), settings, emica=_emica(settings, profile), progress=report
        )
    faces, rejects = sum(filling.faces.values()), len(filling.rejects)
    _answer(
        {"faces": faces, "replacements": filling.replacements, "rejects": rejects},
        f"{out}: {faces} faces, {filling.replacements} of them replacements, {rejects} rejects "
        "(reasons in rejects.parquet)",
        as_json=as_json,
    )


@app.command(epilog="Example: ecavatar export faces --out release --vertices float32")
def export(
    faces: Annotated[Path, typer.Argument(help="Folder of `ecavatar reconstruct`.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the release; replaced if it exists.")],
    vertices: Annotated[Meshes, typer.Option(help="Meshes too; int16 means steps of 10 micrometres.")] = Meshes.none,
    images: Annotated[
        Path | None, typer.Option(help="AffectNet's folder: copy the photographs into the release.")
    ] = None,
    i_hold_the_licence: Annotated[
        bool,
        typer.Option("--i-hold-the-licence", help="Needed by --images: AffectNet's photographs must not be passed on."),
    ] = False,
    synthetic: Annotated[
        bool,
        typer.Option(
            "--synthetic",
            help="The pictures are the sample world's: the release is CC0, not under AffectNet's licence.",
        ),
    ] = False,
    rows_per_file: Annotated[int, typer.Option(min=1, help="Rows of one Parquet file.")] = 4096,
    profile: ProfileName = "sample",
) -> None:
    """Write faces as an Emolib release: Parquet, card, croissant.json, manifest."""
    from ecavatar.emolib.dataset import write_emolib
    from ecavatar.storage.files import resolve_inside
    from ecavatar.storage.parquet import table_metadata
    from ecavatar.storage.shards import list_shards

    if images is not None and not i_hold_the_licence:
        raise ConfigError("--images copies AffectNet's photographs. If you hold its licence add --i-hold-the-licence; "
                          "such a release must not be passed on.")  # fmt: skip
    settings = ExportSettings(vertices=vertices.value, images=images is not None, rows_per_file=rows_per_file)
    parts = list_shards(faces)
    info = write_emolib(
        out,
        parts,
        asset=_face_model(profile),
        backend=table_metadata(parts[0])["backend"],
        settings=settings,
        source="sample" if synthetic else "affectnet",
        read_image_bytes=None if images is None else lambda row: resolve_inside(images, str(row["path"])).read_bytes(),
    )
    print(f"{out}: {info.total} faces in {len(info.counts)} categories; check it with `ecavatar verify {out}`")


@app.command(epilog="Example: ecavatar verify release")
def verify(
    release: Release,
    *,
    face_model: Annotated[
        Path | None,
        typer.Option(help="The face model (npz): compute again what follows from it, meshes or jaw angles."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute everything a release says about itself; exit code 2 if something is wrong."""
    from ecavatar.face.model import FaceAsset
    from ecavatar.releases import verify_release

    problems = verify_release(release, None if face_model is None else FaceAsset.load(face_model))
    listed = "\n".join(f"  {problem}" for problem in problems)
    text = f"{release}: {len(problems)} problem(s):\n{listed}" if problems else f"{release}: all is as it says."
    _answer({"problems": problems}, text, as_json=as_json)
    if problems:
        raise typer.Exit(2)


@app.command(epilog="Example: ecavatar rig downloads/VOCASET --out vocateeth --profile full --mouth my_mouth.obj")
def rig(
    vocaset: Annotated[Path, typer.Argument(help="VOCASET: its four raw files, or vertices_npy/ with wav/.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the VOCATeeth; what a killed run finished is kept.")],
    mouth: Annotated[
        Path | None,
        typer.Option(help="Your own mouth (.obj or .ply with labels, or .npz); default: the open one."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Part labels of --mouth (.csv, .json or .npy).")] = None,
    materialise: Annotated[
        Materialised | None, typer.Option(help="Whole heads too, into OUT-heads-npy or -parquet.")
    ] = None,
    fps: Annotated[int, typer.Option(min=1, help="Frames per second kept; must divide 60.")] = 30,
    patch_mm: Annotated[
        float, typer.Option(min=0, max=50, help="Average chin and ear points over this radius; 0 is the paper's.")
    ] = 5.0,
    workers: Annotated[int, typer.Option(min=1, help="Subjects at a time; changes no byte.")] = 1,
    profile: ProfileName = "sample",
    as_json: AsJson = False,
) -> None:
    """Give every VOCASET head teeth, gums and a tongue that follow its chin."""
    from ecavatar.vocateeth.build import rig_folder
    from ecavatar.vocateeth.materialise import materialise as write_heads

    heads = None if materialise is None else out.with_name(f"{out.name}-heads-{materialise.value}")
    if heads is not None and heads.exists():
        raise ConfigError(f"{heads} exists; --materialise would replace it. Move it away first.")
    settings = RigSettings(mouth="as given", fps=fps, patch_mm=patch_mm, max_rejects=1.0)
    with _progress("subjects") as report:
        counts = rig_folder(
            vocaset, out, _face_model(profile), settings, _mouth(mouth, labels), workers=workers, progress=report
        )
    text = f"{out}: {', '.join(f'{count} {name}' for name, count in counts.items())} (reasons in rejects.parquet)"
    if materialise is not None and heads is not None:
        text += f"; {write_heads(out, heads, materialise.value)} whole heads in {heads}"
    _answer(dict(counts), text, as_json=as_json)


@app.command(epilog="Example: ecavatar face photo.png --out face")
def face(
    photo: Annotated[Path, typer.Argument(help="A picture with one clearly visible face.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for coefficients, two meshes and a picture; replaced.")],
    backend: Annotated[Backend | None, typer.Option(help="Default: as the settings file says.")] = None,
    profile: ProfileName = "sample",
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Reconstruct the face in one photo: coefficients, neutral and expressive mesh, and both laid over the photo."""
    from ecavatar.face_files import write_face
    from ecavatar.reconstruction.landmarks import FaceLandmarker
    from ecavatar.reconstruction.table import Reconstructor

    settings = _reconstruct_settings(params, profile, backend)
    reconstructor = Reconstructor(_face_model(profile), settings, _emica(settings, profile))
    with FaceLandmarker() as landmarker:
        write_face(photo, out, reconstructor, landmarker)
    print(f"{out}: coefficients.json, neutral.ply, expressive.ply, overlay.png")


@emolib_app.command(
    epilog="Example: ecavatar emolib nearest data/sample/emolib --face face --emotion happy --level 3 --json"
)
def nearest(
    release: Release,
    *,
    face: Annotated[Path, typer.Option(help="Folder of `ecavatar face`, or its shape as json, npz or npy.")],
    emotion: Annotated[str, typer.Option(help="One of: " + ", ".join(e.label for e in Emotion) + ".")],
    level: Annotated[int, typer.Option(min=1, max=3, help="Intensity.")],
    take_nearest_level: Annotated[
        bool,
        typer.Option(
            "--take-nearest-level",
            help="Where this level has no faces, take the nearest that has, instead of refusing.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the emotional face whose identity is nearest to a given one (section 4.1 of the paper)."""
    from ecavatar.emolib.retrieval import EmolibIndex, face_shape

    label, library = LabelPair(Emotion.from_label(emotion), level), EmolibIndex.open(release)
    shape, basis = face_shape(face)
    if basis is None:
        print(f"note: {face} does not name its basis; {library.info.basis} is taken.", file=sys.stderr)
    else:
        library.require_basis(basis)
    item = library.nearest(shape, label, when_empty="nearest_level" if take_nearest_level else "refuse")
    facts = {
        "item_id": item.item_id,
        "emotion": item.label.emotion.label,
        "level": item.label.level,
        "shape_distance": item.shape_distance,
        "shape": item.shape.tolist(),
        "expression": item.expression.tolist(),
        "jaw_pose": item.jaw_pose.tolist(),
    }
    instead = f" (level {level} has none)" if item.is_substituted else ""
    _answer(
        facts,
        f"{item.item_id}: {item.label.emotion.label} level {item.label.level}{instead}, "
        f"{item.shape_distance:.3g} away in shape",
        as_json=as_json,
    )


@emolib_app.command("import", epilog="Example: ecavatar emolib import emolib_release.zip --out release")
def import_authors(
    source: Annotated[Path, typer.Argument(help="The authors' zip, the folder it was unpacked to, or the like.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the release; replaced if it exists.")],
    profile: ProfileName = "full",
) -> None:
    """Read the paper's own Emolib, whatever its layout, and write it as a release of this project."""
    from ecavatar.corpora.emolib_zip import read_items
    from ecavatar.emolib.dataset import write_emolib

    asset = _face_model(profile)
    imported = read_items(source, n_shape=asset.n_shape, n_expression=asset.n_expression)
    settings = ExportSettings(vertices="none", images=False, rows_per_file=4096)
    info = write_emolib(out, imported.table, asset=asset, backend="imported", settings=settings)
    print(f"{out}: {info.total} faces; {len(imported.rejects)} items could not be used")
    for reject in imported.rejects[:_SHOWN]:
        print(f"  {reject.item_id}: {reject.reason}, {reject.detail}")
    print(f"The zip does not name its face model; {asset.basis} was taken, that of profile {profile}.")


@emolib_app.command(epilog="Example: ecavatar emolib folders data/sample/emolib --out folders")
def folders(
    release: Release,
    *,
    out: Annotated[Path, typer.Option(help="Folder to make; it must not exist.")],
    profile: ProfileName = "sample",
) -> None:
    """Write a release as a folder per item (mesh.obj, shape.npy, exp.npy, jaw.npy), for programs that know no other."""
    from ecavatar.emolib.item_folders import export_item_folders

    print(f"{out}: {export_item_folders(release, out, _face_model(profile))} items")


@app.command(epilog="Example: ecavatar lips speech.wav --template face/neutral.ply --out motion.npz")
def lips(
    audio: Annotated[Path, typer.Argument(help="Speech of any length: a sound file, or a film whose sound is used.")],
    *,
    template: Annotated[Path, typer.Option(help="Neutral face: a mesh, or the folder of `ecavatar face`.")],
    out: Annotated[Path, typer.Option(help="The motion to write (npz); a picture of its curves goes beside it.")],
    mouth: Annotated[bool, typer.Option("--mouth/--no-mouth", help="Teeth, gums and tongue behind the lips.")] = True,
    model: Annotated[Path | None, typer.Option(help="Trained SelfTalk; default: the profile's.")] = None,
    profile: ProfileName = "sample",
    as_json: AsJson = False,
) -> None:
    """Let a neutral face speak a recording: the lips alone, without emotion."""
    import torch

    from ecavatar.animation.lips import LipSpeaker, write_lips
    from ecavatar.mouth.source import open_mouth

    if out.suffix != ".npz":
        raise ConfigError(f"--out must end in .npz, got {out}.")
    speaker = LipSpeaker.load(
        selftalk=model or _data(profile) / "models" / "selftalk",
        face_model=_data(profile) / asset_of_kind("face-model").path,
    )
    picture = out.with_suffix(".png")
    torch.set_num_threads(1)  # two runs give the same bytes
    curves, sound = write_lips(
        audio, template, out, speaker, mouth=open_mouth("procedural") if mouth else None, picture=picture
    )
    _warn(sound.warnings())
    _answer(
        {"frames": len(curves.opening_m), "fps": speaker.fps, "seconds": sound.seconds},
        f"{out}: {len(curves.opening_m)} frames at {speaker.fps:g} fps; curves in {picture}",
        as_json=as_json,
    )


@app.command(epilog="Example: ecavatar emotion speech.wav --out track.json")
def emotion(
    audio: Annotated[Path, typer.Argument(help="Speech: a sound file, or a film whose sound is used.")],
    *,
    out: Annotated[Path, typer.Option(help="The emotion track to write (json); its picture goes beside it.")],
    window: Annotated[
        float | None, typer.Option(min=0.2, help="Seconds per emotion; default: as the settings file says.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="An emotion2vec: a folder or a published id; default: the profile's.")
    ] = None,
    profile: ProfileName = "sample",
    params: ParamsFile = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Recognise emotion and level along a recording; edit the track and give it to `ecavatar animate --track`."""
    from ecavatar.evaluation.emotion_pictures import write_track_plot
    from ecavatar.speech.audio import SPEECH_RATE
    from ecavatar.speech.emotion_file import write_emotion_track
    from ecavatar.speech.track import LabelRule, to_json

    if out.suffix != ".json":
        raise ConfigError(f"--out must end in .json, got {out}; the picture goes beside it as .png.")
    settings = load_params(params).profile(profile).emotions
    track, samples = write_emotion_track(
        audio,
        out,
        model=model or _data(profile) / asset_of_kind("emotion2vec").path,
        window=window or settings.window_seconds,
        rule=LabelRule.of(settings),
    )
    picture = out.with_suffix(".png")
    write_track_plot(picture, samples, SPEECH_RATE, track)
    shown = ", ".join(f"{w.emotion.label} {w.level}" for w in track.windows)
    _answer(to_json(track), f"{out}: {shown}; picture in {picture}", as_json=as_json)


@app.command(epilog="Example: ecavatar animate photo.png speech.wav --out clip.mp4 --emotion happy --level 3")
def animate(
    photo: Annotated[Path, typer.Argument(help="A picture with one clearly visible face.")],
    audio: Annotated[Path, typer.Argument(help="Speech: a sound file, or a film whose sound is used.")],
    *,
    out: Annotated[Path, typer.Option(help="The film to write (mp4).")],
    emotion: Annotated[
        str | None, typer.Option(help="Emotion to show; recognised from the speech if not given.")
    ] = None,
    level: Annotated[
        int | None, typer.Option(min=1, max=3, help="Its intensity; 2 if only the emotion is given.")
    ] = None,
    track: Annotated[
        Path | None, typer.Option(help="Emotions along the speech: a track of `ecavatar emotion`, edited or not.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="Edge of the square film in pixels.")] = 512,
    profile: ProfileName = "sample",
    params: ParamsFile = Path("params.yaml"),
) -> None:
    """Let the face in a photo speak a recording, with emotion."""
    label = _label(emotion, level)
    if track is not None and label is not None:
        raise ConfigError("--track says which emotion is shown when; give it without --emotion and --level.")
    if out.suffix != ".mp4" or size % 2:
        raise ConfigError(f"--out must end in .mp4 and --size be even; got {out} and {size}.")
    from ecavatar.animate import animate_files  # networks take seconds to import

    animation = animate_files(
        photo,
        audio,
        out,
        data=Path("data") / profile,
        settings=load_params(params).profile(profile),
        label=label,
        track=track,
        size_px=size,
    )
    shown = ", ".join(f"{w.emotion.label} {w.level}" for w in animation.track.windows)
    print(f"{out}: {len(animation.motion.vertices)} frames at {animation.motion.fps:g} fps; emotion: {shown}")


def _reconstruct_settings(params: Path, profile: str, backend: Backend | None) -> ReconstructSettings:
    settings = load_params(params).profile(profile).reconstruct
    return settings if backend is None else settings.model_copy(update={"backend": backend.value})


def _face_model(profile: str) -> "FaceAsset":
    from ecavatar.face.model import FaceAsset

    return FaceAsset.load(_data(profile) / asset_of_kind("face-model").path)


def _emica(settings: ReconstructSettings, profile: str) -> Path | None:
    return _data(profile) / asset_of_kind("emica").path if settings.backend == "emica" else None


def _data(profile: str) -> Path:
    return Path("data") / profile


def _answer(facts: dict[str, Any], text: str, *, as_json: bool) -> None:  # Any: json values
    print(json.dumps(facts, indent=1, sort_keys=True) if as_json else text)


def _warn(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Tells how far a long work is (done, of how many): a bar on a terminal, a line now and then elsewhere."""
    console, told = Console(stderr=True), time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def report(done: int, total: int) -> None:
            nonlocal told
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - told > _LINE_EVERY_SECONDS:
                told = time.monotonic()
                print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

        yield report


def _mouth(path: Path | None, labels: Path | None) -> "MouthMesh":
    """The mouth to fit: the open one, or the user's."""
    from ecavatar.mouth.mouth_file import read_mouth
    from ecavatar.mouth.source import open_mouth

    if path is None and labels is not None:
        raise ConfigError("--labels says what the vertices of --mouth are; give both.")
    if labels is not None and path is not None and path.suffix == ".npz":
        raise ConfigError(f"{path} holds its labels; give --labels with an .obj or .ply only.")
    if path is None or path.suffix == ".npz":
        return open_mouth("procedural" if path is None else str(path))
    return read_mouth(path, labels)


def _label(emotion: str | None, level: int | None) -> LabelPair | None:
    if emotion is None:
        if level is not None:
            raise ConfigError(
                "--level needs --emotion; without both, emotion and level are recognised from the speech."
            )
        return None
    return LabelPair(Emotion.from_label(emotion), 2 if level is None else level)


def main() -> None:
    """Run the command line and exit."""
    try:
        app()
    except EcavatarError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        print(f"error: {error.filename}: {error.strerror}. Check the paths and their permissions.", file=sys.stderr)
        sys.exit(2)


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print("[bold]this machine[/bold]")
    for name, value in diagnosis.machine.items():
        console.print(f"  {name:<22} {value}", markup=False)
    console.print("[bold]packages[/bold]")
    for name, version in diagnosis.packages.items():
        console.print(f"  {name:<22} {version or 'missing: run `make setup`'}", markup=False)
    console.print("[bold]system libraries[/bold]")
    for name, fix in diagnosis.libraries.items():
        console.print(f"  {name:<22} {'found' if not fix else f'missing: {fix}'}", markup=False)
    console.print("[bold]files you may supply[/bold]")
    for state in diagnosis.assets:
        console.print(f"  {state.kind:<22} {state.sentence()}", markup=False)
    console.print("[bold]what can run[/bold]")
    for name, verdict in diagnosis.profiles().items():
        console.print(f"  {name:<22} {verdict}", markup=False)


if __name__ == "__main__":
    main()
