"""Is the mouth's motion right? Study `mouth`: which vertices the chin rule should read, and where the teeth go.

Every variant of the rule (P and Q single vertices as in the paper, or the means of patches) measures the same clips,
once as they are and once with scan noise added, since a patch is there for noise and the sample world has none. Where
the true jaw rotation is known, the angles and the path of a lower incisor are compared with it; where it is not (the
real VOCASET), the study tells jitter, agreement of the variants and the gap between teeth and lip, and recommends
nothing.

The true incisor is the fitted one, turned by the true angle about the face model's own jaw joint and the head's x axis:
a simplification for jaws that also swing to the side, whose whole angle counts as opening.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import NATIVE_FPS, Vocaset, VocasetClip, first_bad_frame
from ecavatar.errors import DataError
from ecavatar.evaluation.mouth_pictures import AngleCurve, spread
from ecavatar.face.landmarks import ibug68_points
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.fit import MouthFit, fit_mouth, pose_mouth
from ecavatar.mouth.model import MouthMesh, Part
from ecavatar.mouth.penetration import measure_penetration, outer_skin
from ecavatar.mouth.rig import ChinRig, head_axes
from ecavatar.seeding import stream
from ecavatar.storage.parquet import read_table

PAPER_MM = 0.0
"""Radius of the paper's variant: P and Q are single vertices."""
PATCHES_MM = (PAPER_MM, 5.0, 8.0, 10.0, 15.0)
"""Radii that are compared; the open head has 1, 2, 5, 10 and 26 chin vertices in them."""
SCAN_NOISE_MM = 0.05
"""Standard deviation of what is added to each coordinate of every vertex of every frame; templates stay as they are."""
RULE = "the patch with the lowest RMSE against the true jaw rotation under added scan noise; of equals the smallest"
TRUE_JAW = "true jaw"
"""Variant whose teeth follow the true rotation about the face model's jaw joint."""
SKIN_FRAMES_PER_SECOND = 3
"""In so many frames of each second the lower teeth are looked for outside the skin."""

_CURVES = 3
_JAW = 2  # joint of FaceAsset.joint_regressor
_LOWER_LIP = 66  # iBUG, counted from 0: the middle of the inner lower lip
_CENTRAL_INCISORS = (31, 41)
_MIDDLE_M = 0.004  # where teeth have no numbers, the incisors lie within 4 mm of the middle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GapTrack:
    """The lower incisors' edge against the lower lip along one clip."""

    clip_id: str
    fps: int
    gaps: Mapping[str, Float[np.ndarray, "T 3"]]
    """Variant -> lip to edge of each frame in the head's axes, metres."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MouthStudy:
    """What the study found; every table has one row per variant, and per subject or clip as it is named.

    Angle tables: `patch_mm`, `noise_mm`, (`subject`, `clip_id`,) then the figures of `angle_figures`, then
    `agreement_rms_deg`: RMS difference from the paper's variant on the same meshes. The gap table: `variant`, then the
    figures of `gap_figures`.
    """

    clips: pd.DataFrame
    subjects: pd.DataFrame
    variants: pd.DataFrame
    gaps: pd.DataFrame
    example: GapTrack
    left_out: Sequence[str]
    """Clips with vertices that are not finite."""
    points: Mapping[float, tuple[int, int]]
    """patch_mm -> vertices of P and of Q."""
    recommended_mm: float | None
    """None where no truth is known."""
    subjects_better: int | None
    """Subjects whose RMSE under noise the recommended patch lowers, compared with the paper's variant."""
    curves: Sequence[AngleCurve]
    """The paper's variant over the sound of a few clips."""

    @property
    def has_truth(self) -> bool:
        """Whether the true jaw rotation was known."""
        return self.recommended_mm is not None

    @property
    def verdict(self) -> str:
        """What the rule chose, with its figures."""
        if self.recommended_mm is None:
            return "The true jaw rotation is not known here: nothing is recommended."
        noisy = self.variants[self.variants["noise_mm"] > 0].set_index("patch_mm")["rmse_deg"]
        best, paper = float(noisy[self.recommended_mm]), float(noisy[PAPER_MM])
        beside = (
            f"; the paper's single vertices {paper:.3f}. It is lower for {self.subjects_better} of "
            f"{self.subjects['subject'].nunique()} subjects"
        )
        told = beside if self.recommended_mm != PAPER_MM else ", the paper's single vertices"
        return f"Recommended: patch_mm {self.recommended_mm:g}, RMSE {best:.3f} degrees{told}. Rule: {RULE}."


def jaw_truth(path: Path, fps: int) -> dict[str, Float[np.ndarray, " T"]]:
    """True jaw angle of every clip, radians, at `fps`; empty where there is no such file, as for the real VOCASET.

    Args:
        path: truth/vocaset.parquet: clip_id, frame (60 a second), jaw_angle.
        fps: a divisor of 60.
    """
    if not path.is_file():
        return {}
    table = read_table(path).to_pandas()
    step = NATIVE_FPS // fps
    return {
        str(clip_id): rows.sort_values("frame")["jaw_angle"].to_numpy(np.float64)[::step]
        for clip_id, rows in table.groupby("clip_id")
    }


def mouth_study(
    vocaset: Vocaset,
    asset: FaceAsset,
    mouth: MouthMesh,
    truth: Mapping[str, Float[np.ndarray, " T"]],
    settings: RigSettings,
    seed: int,
    patches_mm: Sequence[float] = PATCHES_MM,
) -> MouthStudy:
    """Measure all variants on all clips.

    Args:
        vocaset: the corpus; a clip is read once.
        asset: the corpus's topology.
        mouth: fitted to every subject.
        truth: clip_id -> true jaw angle at the settings' frame rate, radians; empty where it is not known.
        settings: frame rate; its `patch_mm` is replaced by each of `patches_mm`.
        seed: of the added noise.
        patches_mm: radii to compare; the paper's must be among them.

    Raises:
        DataError: no clip with finite vertices, the paper's variant is missing, or the truth lacks a clip or has
            another length.
    """
    _check(vocaset, truth, settings, patches_mm)
    skin = outer_skin(asset)
    seats = {
        subject: _Seat.of(template, asset, skin, mouth, settings, patches_mm)
        for subject, template in sorted(vocaset.templates.items())
    }
    found = {
        clip.clip_id: _track(vocaset, clip, seats[clip.subject], truth.get(clip.clip_id), settings.fps, seed)
        for clip in vocaset.clips
    }
    tracks = [track for track in found.values() if track is not None]
    if not tracks:
        raise DataError(f"all {len(found)} clips have vertices that are not finite. Copy the corpus again.")
    variants = _angle_table(tracks, [])
    subjects = _angle_table(tracks, ["subject"])
    recommended = recommend(variants) if truth else None
    shown = [track for track in tracks if track.clip.split == "test"] or tracks
    first = next(iter(seats.values()))
    return MouthStudy(
        clips=_angle_table(tracks, ["subject", "clip_id"]),
        subjects=subjects,
        variants=variants,
        gaps=_gap_table(tracks),
        example=GapTrack(clip_id=shown[0].clip.clip_id, fps=settings.fps, gaps=shown[0].gaps),
        left_out=[clip_id for clip_id, track in found.items() if track is None],
        points={patch: (len(rig.chin), len(rig.ear)) for patch, rig in first.rigs.items()},
        recommended_mm=recommended,
        subjects_better=None if recommended is None else _subjects_better(subjects, recommended),
        curves=[_curve(vocaset, track, settings.fps) for track in spread(shown, _CURVES)],
    )


def recommend(variants: pd.DataFrame) -> float:
    """The patch that `RULE` chooses from the table of variants."""
    noisy = variants[variants["noise_mm"] > 0].sort_values(["rmse_deg", "patch_mm"])
    return float(noisy["patch_mm"].iloc[0])


def angle_figures(
    measured: Sequence[Float[np.ndarray, " T"]], true: Sequence[Float[np.ndarray, " T"]] | None
) -> dict[str, float]:
    """How good angles are, over all frames of one or more clips.

    Args:
        measured: radians, one array per clip.
        true: likewise, or None.

    Returns:
        `frames`; `jitter_deg`, the RMS of the second difference within clips; with truth also the truth's own
        `true_jitter_deg`, `correlation` (NaN where one of both never moves), `mean_absolute_error_deg`,
        `max_absolute_error_deg`, `rmse_deg`, `bias_deg` (mean of measured minus true), and the regression
        true = gain * measured + offset: `gain`, `offset_deg`.
    """
    ours = np.degrees(np.concatenate(list(measured)))
    figures = {"frames": float(len(ours)), "jitter_deg": _jitter(measured)}
    if true is None:
        return figures
    theirs = np.degrees(np.concatenate(list(true)))
    error = ours - theirs
    moves = ours.std() > 0 and theirs.std() > 0
    gain, offset = np.polyfit(ours, theirs, 1) if moves else (np.nan, np.nan)
    return figures | {
        "true_jitter_deg": _jitter(true),
        "correlation": float(np.corrcoef(ours, theirs)[0, 1]) if moves else np.nan,
        "mean_absolute_error_deg": float(np.abs(error).mean()),
        "max_absolute_error_deg": float(np.abs(error).max()),
        "rmse_deg": float(np.sqrt((error**2).mean())),
        "bias_deg": float(error.mean()),
        "gain": float(gain),
        "offset_deg": float(offset),
    }


def gap_figures(gaps: Float[np.ndarray, "T 3"]) -> dict[str, float]:
    """Mean, standard deviation and range, mm, of how far the incisors' edge stands above and behind the inner lower
    lip, and of their distance; and the share of frames in which the edge is in front of the lip.

    Args:
        gaps: from lip to edge in the head's axes, metres.
    """
    lengths = {"above": gaps[:, 1], "behind": -gaps[:, 2], "distance": np.linalg.norm(gaps, axis=1)}
    figures: dict[str, float] = {}
    for name, metres in lengths.items():
        values = metres * 1000
        figures[f"{name}_mean_mm"] = float(values.mean())
        figures[f"{name}_std_mm"] = float(values.std())
        figures[f"{name}_range_mm"] = float(np.ptp(values))
    return figures | {"in_front_share": float((gaps[:, 2] > 0).mean())}


def incisor_vertex(mouth: MouthMesh) -> int:
    """The highest point of the lower central incisors: their edge where the jaws are closed.

    Teeth without numbers: the highest lower-teeth vertex within 4 mm of the middle.

    Raises:
        DataError: the mouth has neither.
    """
    is_lower = mouth.part == Part.LOWER_TEETH
    named = is_lower & np.isin(mouth.tooth, _CENTRAL_INCISORS)
    chosen = np.flatnonzero(named if named.any() else is_lower & (np.abs(mouth.vertices[:, 0]) < _MIDDLE_M))
    if not len(chosen):
        raise DataError(f"mouth {mouth.name!r} has no lower teeth in the middle; check its part labels.")
    return int(chosen[np.argmax(mouth.vertices[chosen, 1])])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seat:
    """One subject: the rule's variants and where the mouth sits."""

    asset: FaceAsset
    mouth: MouthMesh
    rigs: Mapping[float, ChinRig]
    axes: Float[np.ndarray, "3 3"]
    fit: MouthFit
    true_fit: MouthFit
    """The same mouth, turning about the face model's jaw joint."""
    incisor: int
    skin: Int[np.ndarray, "F 3"]

    @classmethod
    def of(
        cls,
        template: np.ndarray,
        asset: FaceAsset,
        skin: np.ndarray,
        mouth: MouthMesh,
        settings: RigSettings,
        patches_mm: Sequence[float],
    ) -> "_Seat":
        rigs = {
            patch: ChinRig.fit(template, asset, settings.model_copy(update={"patch_mm": float(patch)}))
            for patch in patches_mm
        }
        axes = head_axes(template.astype(np.float64), asset)[1]
        fit, incisor = fit_mouth(mouth, template, asset), incisor_vertex(mouth)
        joint = (asset.joint_regressor.astype(np.float64) @ template)[_JAW]
        return cls(
            asset=asset,
            mouth=mouth,
            rigs=rigs,
            axes=axes,
            fit=fit,
            true_fit=dataclasses.replace(fit, axis=axes[0], pivot=joint),
            incisor=incisor,
            skin=skin,
        )

    def outside_m(self, vertices: np.ndarray, fit: MouthFit, angles: np.ndarray) -> list[float]:
        """How far the lower teeth stick out of the skin in each frame, metres; 0 where they do not."""
        teeth = self.mouth.part == Part.LOWER_TEETH
        heads = pose_mouth(self.mouth, fit, angles)[:, teeth]
        found = [measure_penetration(face, self.skin, head) for face, head in zip(vertices, heads, strict=True)]
        return [one.deepest_m for one in found]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Track:
    """What one clip gave."""

    clip: VocasetClip
    angles: Mapping[tuple[float, float], np.ndarray]
    """(patch_mm, noise_mm) -> radians."""
    true: np.ndarray | None
    gaps: Mapping[str, np.ndarray]
    incisor_error: Mapping[str, np.ndarray]
    """Variant -> metres; empty without truth."""
    outside: Mapping[str, Sequence[float]]
    """Variant -> metres outside the skin, of the frames that were looked at."""


def patch_name(patch_mm: float) -> str:
    """How a variant is called: `single vertices` or `5 mm`."""
    return f"{patch_mm:g} mm" if patch_mm else "single vertices"


def _track(
    vocaset: Vocaset, clip: VocasetClip, seat: _Seat, true: np.ndarray | None, fps: int, seed: int
) -> _Track | None:
    """What the clip gives; None where it has vertices that are not finite."""
    vertices = vocaset.vertices(clip, fps)
    if first_bad_frame(vertices) is not None:
        return None
    noise = stream(seed, "mouth_study", "scan_noise", clip.clip_id).normal(0, SCAN_NOISE_MM / 1000, vertices.shape)
    measured = {0.0: vertices, SCAN_NOISE_MM: vertices + noise}
    angles = {
        (patch, added): rig.angles(meshes) for patch, rig in seat.rigs.items() for added, meshes in measured.items()
    }
    motions = {patch_name(patch): (seat.fit, angles[patch, 0.0]) for patch in seat.rigs}
    if true is not None:
        motions[TRUE_JAW] = (seat.true_fit, true)
    edges = {name: pose_mouth(seat.mouth, fit, turn)[:, seat.incisor] for name, (fit, turn) in motions.items()}
    lip = ibug68_points(seat.asset, vertices.astype(np.float64))[:, _LOWER_LIP]
    some = slice(None, None, max(1, fps // SKIN_FRAMES_PER_SECOND))
    looked_at = {name: motions[name] for name in (patch_name(PAPER_MM), TRUE_JAW) if name in motions}
    errors = {name: np.linalg.norm(edge - edges[TRUE_JAW], axis=1) for name, edge in edges.items() if true is not None}
    return _Track(
        clip=clip,
        angles=angles,
        true=true,
        gaps={name: (edge - lip) @ seat.axes.T for name, edge in edges.items()},
        incisor_error=errors,
        outside={name: seat.outside_m(vertices[some], fit, turn[some]) for name, (fit, turn) in looked_at.items()},
    )


def _check(
    vocaset: Vocaset, truth: Mapping[str, np.ndarray], settings: RigSettings, patches_mm: Sequence[float]
) -> None:
    if not vocaset.clips or PAPER_MM not in patches_mm:
        raise DataError(
            f"the study needs clips and the paper's variant, patch {PAPER_MM:g} mm; got {len(vocaset.clips)} clips and "
            f"patches {list(patches_mm)}."
        )
    frames = {clip.clip_id: len(clip.rows[:: NATIVE_FPS // settings.fps]) for clip in vocaset.clips}
    wrong = [name for name, count in frames.items() if truth and len(truth.get(name, ())) != count]
    if wrong:
        raise DataError(
            f"the true jaw angles of {len(wrong)} clip(s) are missing or of another length, the first is {wrong[0]} "
            f"with {frames[wrong[0]]} frames at {settings.fps} a second. Run make_corpora again."
        )


def _angle_table(tracks: Sequence[_Track], by: Sequence[str]) -> pd.DataFrame:
    """`angle_figures` of every variant and noise, over all clips or by subject or clip."""
    rows = []
    for patch, noise in sorted(tracks[0].angles):
        for keys, group in _groups(tracks, by):
            measured = [track.angles[patch, noise] for track in group]
            paper = [track.angles[PAPER_MM, noise] for track in group]
            known = [track.true for track in group if track.true is not None]
            apart = np.concatenate(measured) - np.concatenate(paper)
            row = {"patch_mm": patch, "noise_mm": noise, **keys, **angle_figures(measured, known or None)}
            rows.append(row | {"agreement_rms_deg": float(np.degrees(np.sqrt((apart**2).mean())))})
    return pd.DataFrame(rows).astype({"frames": int})


def _groups(tracks: Sequence[_Track], by: Sequence[str]) -> Iterator[tuple[dict[str, str], list[_Track]]]:
    keys = [{name: getattr(track.clip, name) for name in by} for track in tracks]
    for key in sorted({tuple(key.values()) for key in keys}):
        yield (
            dict(zip(by, key, strict=True)),
            [track for track, own in zip(tracks, keys, strict=True) if tuple(own.values()) == key],
        )


def _gap_table(tracks: Sequence[_Track]) -> pd.DataFrame:
    """`gap_figures` of every variant over all clips, its incisor's error, and teeth that came through the skin."""
    rows = []
    for name in tracks[0].gaps:
        row: dict[str, object] = {"variant": name, **_pooled_gap_figures(tracks, name)}
        if tracks[0].incisor_error:
            error = np.concatenate([track.incisor_error[name] for track in tracks]) * 1000
            row |= {"incisor_error_mean_mm": float(error.mean()), "incisor_error_max_mm": float(error.max())}
        if name in tracks[0].outside:
            outside = np.concatenate([track.outside[name] for track in tracks]) * 1000
            row |= {
                "skin_frames": len(outside),
                "through_skin_share": float((outside > 0).mean()),
                "through_skin_max_mm": float(outside.max()),
            }
        rows.append(row)
    return pd.DataFrame(rows).astype({"skin_frames": "Int64"})


def _pooled_gap_figures(tracks: Sequence[_Track], name: str) -> dict[str, float]:
    """`gap_figures` of each subject, averaged over subjects: what differs from head to head is no motion."""
    subjects = [
        gap_figures(np.concatenate([track.gaps[name] for track in group])) for _, group in _groups(tracks, ["subject"])
    ]
    return {key: float(np.mean([figures[key] for figures in subjects])) for key in subjects[0]}


def _curve(vocaset: Vocaset, track: _Track, fps: int) -> AngleCurve:
    return AngleCurve(
        clip_id=track.clip.clip_id,
        fps=fps,
        angle=track.angles[PAPER_MM, 0.0],
        true=track.true,
        sound=vocaset.audio(track.clip),
    )


def _subjects_better(subjects: pd.DataFrame, recommended: float) -> int:
    noisy = subjects[subjects["noise_mm"] > 0].set_index(["patch_mm", "subject"])["rmse_deg"]
    return int((noisy[recommended] < noisy[PAPER_MM]).sum())


def _jitter(angles: Sequence[np.ndarray]) -> float:
    bends = np.degrees(np.concatenate([np.diff(angle, 2) for angle in angles]))
    return float(np.sqrt((bends**2).mean())) if len(bends) else 0.0
