"""Which mouth should SelfTalk predict? Both are trained on the same clips and measured on clips of other people.

`regressed`: every mouth vertex by the last layer, as in the paper. `rigged`: one angle, by which the mouth is turned.
What decides is the face's lip vertex error, whether teeth stay rigid, and the time a clip takes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from ecavatar.config import SelfTalkSettings
from ecavatar.errors import DataError
from ecavatar.face.alignment import register_points_batch
from ecavatar.face.model import FaceAsset
from ecavatar.models.selftalk import Mouth, SelfTalk
from ecavatar.mouth.fit import pose_mouth
from ecavatar.mouth.model import MouthMesh, Part
from ecavatar.speech.audio import SPEECH_RATE, resample
from ecavatar.training.loop import fixed_threads
from ecavatar.training.selftalk import SelfTalkSources, fit_selftalk
from ecavatar.training.weights import load_weights
from ecavatar.vocateeth.dataset import TeethClip, VocaTeeth

MOUTHS: tuple[Mouth, ...] = ("rigged", "regressed")
"""The ways that are compared."""
CLOSE = 1.02
"""Lip vertex errors within 2 % of the best count as equal: two seeds of one network differ by more."""
RULE = "of the mouths whose LVE is within 2 % of the best the most rigid; of equally rigid ones the quicker"
_RIGID_MM = 0.01  # float32 metres of a head resolve 1e-5 mm; what is below a hundredth counts as rigid
_TEETH = (Part.UPPER_TEETH, Part.LOWER_TEETH)
_REPETITIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MouthComparison:
    """Both mouths on the validation clips.

    Columns of `mouths` (index: `rigged`, `regressed`): `lve_m2`, lips of the face; `mouth_error_mm`, mean distance of
    mouth vertices from VOCATeeth's; `teeth_residual_mm` and `teeth_residual_max_mm`, what is left of the teeth's motion
    after the best rigid one of each jaw and frame, root mean square over its vertices, mean and largest over frames;
    `seconds_per_clip`, whole inference with the mouth's vertices; `parameters` behind the encoder.
    """

    mouths: pd.DataFrame
    clips: int

    @property
    def recommended(self) -> str:
        """The mouth that `RULE` picks."""
        near = self.mouths[self.mouths["lve_m2"] <= CLOSE * self.mouths["lve_m2"].min()]
        rigidity = near["teeth_residual_mm"].clip(lower=_RIGID_MM)
        return str(near[rigidity == rigidity.min()]["seconds_per_clip"].idxmin())


def compare_mouths(sources: SelfTalkSources, settings: SelfTalkSettings, seed: int, work: Path) -> MouthComparison:
    """Train SelfTalk with each mouth and measure both on the validation split.

    Args:
        sources: as for `fit_selftalk`.
        settings: section `selftalk`, the same for both; `angle` weighs the rigged mouth's angle.
        seed: of params.yaml, the same for both.
        work: folder for weights, curves and checkpoints: `<mouth>/`, `<mouth>.csv`, `<mouth>.pt`.

    Raises:
        EcavatarError: as `fit_selftalk`.
    """
    teeth, lips = VocaTeeth.open(sources.vocateeth), FaceAsset.load(sources.face_model).regions["lips"]
    rows: dict[str, dict[str, float]] = {}
    for mouth in MOUTHS:
        where = {"out": work / mouth, "curve": work / f"{mouth}.csv", "checkpoint": work / f"{mouth}.pt"}
        fit_selftalk(sources, settings.model_copy(update={"mouth": mouth}), seed, **where)
        network, _ = load_weights(work / mouth, SelfTalk)
        with fixed_threads(settings.training.threads):
            rows[mouth] = mouth_figures(network, teeth, teeth.of_split("val"), lips)
    return MouthComparison(mouths=pd.DataFrame.from_dict(rows, orient="index"), clips=len(teeth.of_split("val")))


def mouth_figures(
    network: SelfTalk, teeth: VocaTeeth, clips: Sequence[TeethClip], lips: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """The columns of `MouthComparison` for one network, pooled over the frames of these clips.

    Args:
        network: trained on `teeth`.
        teeth: the dataset.
        clips: clips to predict.
        lips: lip vertices of the face.

    Raises:
        DataError: no clips.
    """
    if not clips:
        raise DataError("no clips to compare mouths on; give those of a split that has some.")
    lip_errors, mouth_errors, residuals, seconds = [], [], [], []
    for clip in clips:
        sound, rate = teeth.audio(clip)
        samples = torch.from_numpy(resample(sound, rate, SPEECH_RATE))
        truth = teeth.heads(clip)
        predicted, took = _timed(network, teeth, clip, samples, len(truth))
        distance = np.linalg.norm(predicted.astype(np.float64) - truth, axis=2)
        lip_errors.append(np.square(distance[:, lips]).max(axis=1))
        mouth_errors.append(1000 * distance[:, teeth.n_vertices :].mean(axis=1))
        closed = teeth.fit(clip.subject).closed(teeth.mouth)
        residuals.append(1000 * teeth_residuals(predicted[:, teeth.n_vertices :], closed, teeth.mouth))
        seconds.append(took)
    behind = sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in network.encoder.parameters())
    return {
        "lve_m2": float(np.concatenate(lip_errors).mean()),
        "mouth_error_mm": float(np.concatenate(mouth_errors).mean()),
        "teeth_residual_mm": float(np.concatenate(residuals).mean()),
        "teeth_residual_max_mm": float(np.concatenate(residuals).max()),
        "seconds_per_clip": float(np.mean(seconds)),
        "parameters": float(behind),
    }


def teeth_residuals(
    moved: Float[np.ndarray, "T M 3"], closed: Float[np.ndarray, "M 3"], mouth: MouthMesh
) -> Float[np.ndarray, " T"]:
    """How far the teeth of each frame are from a rigid motion of the closed ones, metres.

    Of each jaw's teeth the root mean square distance after the best rigid motion; the larger of both jaws.

    Args:
        moved: mouth vertices of each frame.
        closed: the same mouth with closed jaws.
        mouth: says which vertices are teeth.

    Raises:
        DataError: a jaw has fewer than three tooth vertices.
    """
    jaws = [register_points_batch(moved[:, mouth.part == part], closed[mouth.part == part])[1] for part in _TEETH]
    return np.maximum(*jaws)


def _timed(
    network: SelfTalk, teeth: VocaTeeth, clip: TeethClip, samples: torch.Tensor, frames: int
) -> tuple[Float[np.ndarray, "T V+M 3"], float]:
    """The predicted head of a clip, and the shortest of a few times it took, seconds."""
    template = torch.from_numpy(
        teeth.joined(clip.subject, teeth.templates()[clip.subject][None], np.zeros(1, np.float32))[0]
    )
    fit, best = teeth.fit(clip.subject), float("inf")
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        if network.mouth == "regressed":
            head = network.predict(samples, template, frames).vertices.numpy()
        else:
            motion = network.predict(samples, template[: teeth.n_vertices], frames)
            angles = np.zeros(frames) if motion.angles is None else motion.angles.numpy()
            head = np.concatenate([motion.vertices.numpy(), pose_mouth(teeth.mouth, fit, angles)], axis=1)
        best = min(best, time.perf_counter() - start)
    return head, best
