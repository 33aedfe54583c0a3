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
from ecavatar.face.tags import require_basis
from ecavatar.rendering.video import video_facts
from ecavatar.speech.audio import SPEECH_RATE, read_audio, resample
from ecavatar.storage.parquet import read_table, table_metadata, vector_array

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


def neutral_face(corpus: Corpus, subject: str, root: Path, portraits: Path, asset: FaceAsset) -> NeutralFace:
    """M_in of one subject: VOCASET's template, or the actor's reconstructed portrait.

    Args:
        corpus: name of the corpus.
        subject: as the corpus names them.
        root: the corpus' folder.
        portraits: portraits.parquet of `reconstruct_faces`.
        asset: the face model.

    Raises:
        DataError: nothing is known of this subject.
        BasisError: the portraits belong to another face model.
    """
    if corpus == "vocaset":
        templates = Vocaset.open(root).templates
        if subject in templates:
            return NeutralFace.from_template(asset, templates[subject])
    else:
        require_basis(asset, table_metadata(portraits).get("basis"), portraits)
        table = read_table(portraits)
        names = list(zip(table["corpus"].to_pylist(), table["subject"].to_pylist(), strict=True))
        if (corpus, subject) in names:
            shape = vector_array(table["shape"])[names.index((corpus, subject))]
            return NeutralFace.from_shape(FaceModel(asset), shape)
    raise DataError(f"{corpus} has no neutral face of {subject}: its portrait was rejected or its template is missing.")
