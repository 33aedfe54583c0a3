"""Neutral face + speech + emotion -> moving face: M_lip, M_emo and their fusion M_face (section 4 of the paper)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float

from ecavatar.animation.emotional import emotional_motion
from ecavatar.animation.lip_stream import LONG, LipStream
from ecavatar.animation.motion import Motion
from ecavatar.animation.neutral import NeutralFace
from ecavatar.config import PredictSettings
from ecavatar.emolib.retrieval import EmolibIndex
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.face.regions import fusion_regions
from ecavatar.face.tags import require_basis, require_topology
from ecavatar.models.funet import FuNet, blend
from ecavatar.models.selftalk import SelfTalk
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.sound_facts import measure_sound
from ecavatar.speech.track import EmotionTrack
from ecavatar.training.weights import load_weights

FRAMES_PER_BATCH = 16
"""Frames fused at once: bounds memory; a constant, because the batch size may change the last bit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Animator:
    """The trained parts, ready to animate any neutral face of their topology."""

    asset: FaceAsset
    model: FaceModel
    library: EmolibIndex
    selftalk: SelfTalk
    funet: FuNet | None
    fps: float
    settings: PredictSettings

    @classmethod
    def load(cls, *, face_model: Path, emolib: Path, selftalk: Path, funet: Path, settings: PredictSettings) -> Self:
        """Load everything from the folders the pipeline writes.

        Raises:
            AssetMissingError: a stage has not run yet.
            TopologyError: weights and face model belong to different meshes.
            BasisError: Emolib's coefficients belong to another face model.
        """
        asset = FaceAsset.load(face_model)
        lips, facts = load_weights(selftalk, SelfTalk)
        require_topology(asset, facts.get("topology"), selftalk)
        fusion = None
        if settings.fusion == "funet":
            fusion, fused = load_weights(funet, FuNet)
            require_topology(asset, fused.get("topology"), funet)
        library = EmolibIndex.open(emolib)
        require_basis(asset, library.info.basis, emolib)
        return cls(
            asset=asset,
            model=FaceModel(asset),
            library=library,
            selftalk=lips.eval(),
            funet=None if fusion is None else fusion.eval(),
            fps=float(facts["fps"]),
            settings=settings,
        )

    def lip_motion(self, neutral: NeutralFace, samples: Float[np.ndarray, " samples"]) -> Motion:
        """M_lip: `neutral` saying the speech in `samples` (16 kHz mono, any length; see `lip_stream.LONG`).

        Raises:
            DataError: there are no samples.
        """
        level = measure_sound([samples], SPEECH_RATE).level
        stream = LipStream(self.selftalk, self.fps, LONG, level=level, face_only=True)
        with torch.inference_mode():
            offsets = torch.cat([motion.vertices for motion in (*stream.push(samples), *stream.finish())])
        vertices = neutral.vertices + offsets.numpy()
        return Motion(vertices=vertices, fps=self.fps, topology=self.asset.topology, template=neutral.vertices)

    def fused_motion(self, neutral: NeutralFace, lip: Motion, track: EmotionTrack) -> Motion:
        """M_face: the lips of `lip` with the emotions of `track`."""
        emotional = emotional_motion(
            self.model, self.library, neutral, track, frames=len(lip.vertices), fps=lip.fps, settings=self.settings
        )
        vertices = self._fused(torch.from_numpy(lip.vertices), torch.from_numpy(emotional)).numpy()
        return Motion(vertices=vertices, fps=lip.fps, topology=lip.topology, template=lip.template)

    def _fused(self, lip: torch.Tensor, emotional: torch.Tensor) -> torch.Tensor:
        if self.funet is None:
            return blend(lip, emotional, fusion_regions(self.asset))
        with torch.inference_mode():
            batches = zip(lip.split(FRAMES_PER_BATCH), emotional.split(FRAMES_PER_BATCH), strict=True)
            return torch.cat([self.funet(*batch) for batch in batches])
