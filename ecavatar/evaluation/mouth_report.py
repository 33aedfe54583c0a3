"""What the report tells of VOCATeeth: facts of its mouths, and the pictures of its heads."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ecavatar.config import RigSettings
from ecavatar.evaluation.mouth_pictures import (
    AngleCurve,
    TalkingHead,
    draw_angles,
    draw_rig,
    draw_subjects,
    draw_talking,
    draw_turntable,
    spread,
)
from ecavatar.evaluation.report import FigureEntry
from ecavatar.evaluation.scoring import rounded
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.rig import ChinRig
from ecavatar.storage.parquet import read_table
from ecavatar.vocateeth.dataset import TEMPLATES, TeethClip, VocaTeeth
from ecavatar.vocateeth.facts import read_facts

_CURVES, _MOMENTS = 3, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WidestFrame:
    """The frame of a subject with the largest jaw angle."""

    clip: TeethClip
    frame: int
    angle: float
    """Radians."""


def mouth_facts(teeth: VocaTeeth) -> dict[str, object]:
    """The mouth, how it fits every subject, and how sound and meshes differ in length, as json values."""
    table = read_table(
        teeth.directory / TEMPLATES, ["subject", "split", "penetration_deepest_m", "penetration_vertices"]
    )
    widest = widest_frames(teeth)
    mismatch = {clip.clip_id: clip.duration_mismatch_s for clip in teeth.clips}
    worst = max(sorted(mismatch), key=lambda name: abs(mismatch[name]))
    return {
        "name": teeth.mouth.name,
        "licence": teeth.mouth.licence,
        "duration_mismatch_s": {
            "mean": rounded(float(np.mean(list(mismatch.values())))),
            "largest": rounded(mismatch[worst]),
            "largest_clip": worst,
        },
        "subjects": {
            row["subject"]: {
                "split": row["split"],
                "clips": sum(clip.subject == row["subject"] for clip in teeth.clips),
                "scale": rounded(teeth.fit(row["subject"]).scale),
                "penetration_deepest_mm": rounded(1000 * row["penetration_deepest_m"]),
                "penetration_vertices": row["penetration_vertices"],
                "widest_deg": rounded(float(np.degrees(widest[row["subject"]].angle))),
            }
            for row in table.to_pylist()
            if row["subject"] in widest
        },
    }


def widest_frames(teeth: VocaTeeth) -> dict[str, WidestFrame]:
    """Of every subject with a clip the frame with the largest angle; of equals the first."""
    widest: dict[str, WidestFrame] = {}
    for clip in teeth.clips:
        angles = teeth.angles(clip)
        frame = int(np.argmax(angles))
        if clip.subject not in widest or angles[frame] > widest[clip.subject].angle:
            widest[clip.subject] = WidestFrame(clip=clip, frame=frame, angle=float(angles[frame]))
    return dict(sorted(widest.items()))


def draw_mouths(teeth: VocaTeeth, asset: FaceAsset, size_px: int, out: Path) -> Iterator[FigureEntry]:
    """The figures of VOCATeeth: rig, angles, talking strip, turntable, subjects.

    Args:
        teeth: the dataset.
        asset: the face model of its topology.
        size_px: edge of one picture.
        out: folder of the PNGs.

    Raises:
        TopologyError: the dataset's faces have another vertex order than the asset.
    """
    teeth.require_topology(asset.topology)
    templates, widest = teeth.templates(), widest_frames(teeth)
    clips = teeth.of_split("test")
    subject = clips[0].subject
    rest, opened = _heads(teeth, templates[subject], widest[subject])
    facts = read_facts(teeth.directory)
    settings = RigSettings(mouth=teeth.mouth.name, fps=teeth.fps, patch_mm=facts.patch_mm, max_rejects=0)
    rig = ChinRig.fit(templates[subject], asset, settings)
    draw_rig(out / "rig.png", rest.face, opened.face, asset, teeth.mouth, teeth.fit(subject), rig, 2 * size_px)
    yield FigureEntry(
        title="The rig",
        caption="The jaw's angle is that between Q'P' of a frame and of the template, seen from the left; lower teeth, "
        "lower gum and tongue turn by it about the pivot. P lies on the chin, Q below the left ear, origin and axes at "
        "the face's centre. The skin is drawn as glass.",
        path=out / "rig.png",
    )
    draw_angles(out / "angles.png", [_curve(teeth, clip) for clip in spread(clips, _CURVES)])
    yield FigureEntry(
        title="Jaw angle", caption="The measured angle of test clips over their waveform.", path=out / "angles.png"
    )
    yield _draw_strip(teeth, asset, clips[0], size_px, out / "talking.png")
    draw_turntable(out / "turntable.png", rest, opened, asset, teeth.mouth, size_px)
    yield FigureEntry(
        title="Turntable",
        caption=f"{subject} at rest, in the frame that opens widest ({np.degrees(widest[subject].angle):.1f} degrees), "
        "and the mouth then.",
        path=out / "turntable.png",
    )
    shown = {_short(name): _heads(teeth, templates[name], frame) for name, frame in widest.items()}
    draw_subjects(out / "subjects.png", shown, asset, teeth.mouth, int(0.7 * size_px))
    yield FigureEntry(
        title="One mouth, many heads",
        caption="The mouth as fitted to every subject, at rest and in the frame that opens widest.",
        path=out / "subjects.png",
    )


def _draw_strip(teeth: VocaTeeth, asset: FaceAsset, clip: TeethClip, size_px: int, path: Path) -> FigureEntry:
    moments = spread(range(clip.frames), _MOMENTS)
    heads = [_split(frame, teeth.n_vertices) for frame in teeth.heads(clip)[moments]]
    draw_talking(path, heads, [moment / teeth.fps for moment in moments], asset, teeth.mouth, size_px)
    return FigureEntry(title="Talking", caption=f"Moments of {clip.clip_id} and its mouth then.", path=path)


def _heads(
    teeth: VocaTeeth, template: Float[np.ndarray, "V 3"], widest: WidestFrame
) -> tuple[TalkingHead, TalkingHead]:
    """A subject's head at rest and at the widest."""
    rest = teeth.joined(widest.clip.subject, template[None], np.zeros(1))[0]
    opened = teeth.heads(widest.clip, widest.frame, widest.frame + 1)[0]
    return _split(rest, teeth.n_vertices), _split(opened, teeth.n_vertices)


def _split(head: Float[np.ndarray, "N 3"], n_vertices: int) -> TalkingHead:
    return TalkingHead(face=head[:n_vertices], mouth=head[n_vertices:])


def _curve(teeth: VocaTeeth, clip: TeethClip) -> AngleCurve:
    return AngleCurve(clip_id=clip.clip_id, fps=teeth.fps, angle=teeth.angles(clip), true=None, sound=teeth.audio(clip))


def _short(subject: str) -> str:
    return subject.removeprefix("FaceTalk_").removesuffix("_TA")
