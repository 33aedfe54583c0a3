"""What is predicted and measured: the clips of each corpus, whose face speaks, and in which emotion.

VOCASET: the test subjects' own templates, no emotion (LVE). RAVDESS and MEAD: the face is reconstructed from one
neutral picture of the actor, emotion and level are in the file name (EVE). As in section 5.1 of the paper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from ecavatar.animation.neutral import NeutralFace
from ecavatar.corpora import mead, ravdess
from ecavatar.corpora.clips import SpeechClip
from ecavatar.corpora.vocaset import Vocaset, VocasetClip
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import AssetMissingError, DataError
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.rendering.video import video_facts
from ecavatar.speech.audio import SPEECH_RATE, read_audio, resample
from ecavatar.storage.parquet import read_table, vector_array

Corpus = Literal["vocaset", "ravdess", "mead"]
CORPORA: tuple[Corpus, ...] = ("vocaset", "ravdess", "mead")
VOCASET_FPS = 30
"""VOCASET is evaluated at every second one of its 60 frames per second, as all papers since FaceFormer do."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpokenClip:
    """One clip to predict.

    Attributes:
        corpus: where it is from.
        subject: who speaks.
        clip_id: unique within the corpus.
        label: emotion and level from the corpus; VOCASET's speech is neutral, level 1.
        fps: frame rate of its truth.
        sound: reads the speech: 16 kHz mono float32.
    """

    corpus: Corpus
    subject: str
    clip_id: str
    label: LabelPair
    fps: float
    sound: Callable[[], Float[np.ndarray, " samples"]]


def spoken_clips(corpus: Corpus, root: Path) -> list[SpokenClip]:
    """The clips of a corpus folder that are predicted, sorted by clip id; of VOCASET only VOCA's test split.

    Raises:
        AssetMissingError: the folder is not there.
        DataError: it holds no such clip.
    """
    if not root.is_dir():
        raise AssetMissingError(
            f"corpus folder {root} not found. Put {corpus} there as it ships, or run the sample profile."
        )
    if corpus == "vocaset":
        vocaset = Vocaset.open(root)
        clips = [_vocaset_clip(vocaset, clip) for clip in vocaset.clips if clip.split == "test"]
    else:
        listed = {"ravdess": ravdess, "mead": mead}[corpus].list_clips(root)
        clips = [_acted_clip(corpus, clip) for clip in listed if clip.video is not None]
    if not clips:
        raise DataError(f"{root} holds no clip of {corpus} to predict.")
    return sorted(clips, key=lambda clip: clip.clip_id)


def _vocaset_clip(vocaset: Vocaset, clip: VocasetClip) -> SpokenClip:
    return SpokenClip(
        corpus="vocaset",
        subject=clip.subject,
        clip_id=clip.clip_id,
        label=LabelPair(Emotion.NEUTRAL, 1),
        fps=VOCASET_FPS,
        sound=lambda: resample(*vocaset.audio(clip), SPEECH_RATE),
    )


def _acted_clip(corpus: Corpus, clip: SpeechClip) -> SpokenClip:
    return SpokenClip(
        corpus=corpus,
        subject=clip.subject,
        clip_id=clip.clip_id,
        label=clip.label,
        fps=video_facts(clip.video).fps if clip.video else 0.0,
        sound=partial(read_audio, clip.audio),
    )


def neutral_faces(corpus: Corpus, root: Path, portraits: Path, asset: FaceAsset) -> dict[str, NeutralFace]:
    """M_in of every subject: VOCASET's templates, or the reconstructed portraits of the actors.

    Args:
        corpus: name of the corpus.
        root: its folder.
        portraits: portraits.parquet of `reconstruct_faces`.
        asset: the face model.
    """
    if corpus == "vocaset":
        templates = Vocaset.open(root).templates
        return {subject: NeutralFace.from_template(asset, vertices) for subject, vertices in templates.items()}
    table = read_table(portraits)
    model = FaceModel(asset)
    shapes = vector_array(table["shape"])
    rows = zip(table["corpus"].to_pylist(), table["subject"].to_pylist(), shapes, strict=True)
    return {subject: NeutralFace.from_shape(model, shape) for name, subject, shape in rows if name == corpus}
