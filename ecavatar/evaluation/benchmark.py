"""Every prediction scored against the truth, and every measurement whose truth the sample world knows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ecavatar.animation.motion import Motion
from ecavatar.animation.predictions import read_predictions, subject_file
from ecavatar.config import BenchmarkSettings
from ecavatar.corpora.vocaset import NATIVE_FPS
from ecavatar.emotion import Emotion
from ecavatar.errors import DataError
from ecavatar.evaluation.emotion_accuracy import score_tracks
from ecavatar.evaluation.methods import METHODS, Method
from ecavatar.evaluation.protocol import CORPORA, Corpus, SpokenClip, spoken_clips
from ecavatar.evaluation.scoring import ClipFacts, ClipScore, compare, rounded, score_clip, score_table, summarise
from ecavatar.evaluation.truth import acted_truth, correlation, region_displacements, vocaset_truth
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.speech.track_table import read_tracks
from ecavatar.storage.files import atomic_path, write_json
from ecavatar.storage.parquet import read_table, vector_array
from ecavatar.storage.shards import read_shards
from ecavatar.vocateeth.dataset import VocaTeeth

WEAK_CORRELATION = 0.5
"""Categories whose reconstructed upper face correlates less than this with the truth are named in the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSources:
    """Where the benchmark reads."""

    face_model: Path
    vocaset: Path
    corpora: Mapping[Corpus, Path]
    predictions: Mapping[Method, Path]
    faces: Path
    vocateeth: Path
    truth: Path
    emotions: Mapping[Corpus, Path]


def run_benchmark(
    sources: BenchmarkSources, settings: BenchmarkSettings, seed: int, *, metrics: Path, per_clip: Path
) -> str:
    """Score everything and write metrics.json and per_clip.csv.

    Returns:
        One line on what was scored.

    Raises:
        DataError: a prediction or truth is missing; nothing is written.
    """
    asset = FaceAsset.load(sources.face_model)
    clips = {corpus: spoken_clips(corpus, sources.corpora[corpus]) for corpus in CORPORA}
    table = score_table(score for corpus in CORPORA for score in _corpus_scores(corpus, clips[corpus], sources, asset))
    errors = summarise(table, samples=settings.bootstrap_samples, seed=seed)
    value = {
        "errors": errors,
        "ratio_to_neutral": compare(errors, "neutral"),
        "reconstruction": reconstruction_accuracy(sources.faces, sources.truth / "affectnet.parquet", asset),
        "chin_angle": chin_angle_accuracy(sources.vocateeth, sources.truth / "vocaset.parquet"),
        "emotion_from_speech": {
            corpus: score_tracks(read_tracks(sources.emotions[corpus]), clips[corpus]).to_json()
            for corpus in CORPORA
            if corpus != "vocaset"
        },
    }
    with atomic_path(per_clip) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    write_json(metrics, value)
    return f"{len(table)} scores of {table['clip_id'].nunique()} clips"


def _corpus_scores(
    corpus: Corpus, listed: Sequence[SpokenClip], sources: BenchmarkSources, asset: FaceAsset
) -> Iterator[ClipScore]:
    clips = {clip.clip_id: clip for clip in listed}
    truth = dict(
        vocaset_truth(sources.vocaset, asset.topology)
        if corpus == "vocaset"
        else acted_truth(sources.truth / f"{corpus}.parquet", asset)
    )
    lips = asset.regions["lips"] if corpus == "vocaset" else None
    upper_face = None if corpus == "vocaset" else asset.regions["upper_face"]
    for method in METHODS:
        predictions = dict(_predictions(sources.predictions[method], corpus, clips))
        missing = sorted(clips.keys() - predictions.keys()) + sorted(clips.keys() - truth.keys())
        if missing:
            raise DataError(
                f"{corpus}: no prediction of {method} or no truth for {', '.join(missing[:5])}. Run `dvc repro`."
            )
        for clip_id, clip in clips.items():
            yield score_clip(
                _facts(clip), method, predictions[clip_id], truth[clip_id], lips=lips, upper_face=upper_face
            )


def _predictions(directory: Path, corpus: Corpus, clips: Mapping[str, SpokenClip]) -> Iterator[tuple[str, Motion]]:
    for subject in sorted({clip.subject for clip in clips.values()}):
        yield from read_predictions(subject_file(directory, corpus, subject))


def _facts(clip: SpokenClip) -> ClipFacts:
    return ClipFacts(
        corpus=clip.corpus,
        subject=clip.subject,
        clip_id=clip.clip_id,
        emotion=clip.label.emotion.label,
        level=clip.label.level,
    )


def reconstruction_accuracy(faces: Path, truth: Path, asset: FaceAsset) -> dict[str, object]:
    """How well the upper face of every category was recovered from pictures.

    Correlation of reconstructed and true displacements from the own neutral, over all faces of a category, upper-face
    vertices and axes. Categories below `WEAK_CORRELATION` are listed under `weak`.

    Args:
        faces: output of `reconstruct_faces`.
        truth: source_id, shape, expression, jaw_pose of every rendered face.
        asset: the face model.
    """
    columns = ["source_id", "emotion", "shape", "expression", "jaw_pose"]
    found = pa.concat_tables([read_shards(faces / name, columns) for name in ("emolib", "pool")])
    true = read_table(truth)
    row_of = {source_id: row for row, source_id in enumerate(true["source_id"].to_pylist())}
    rows = np.array([row_of[source_id] for source_id in found["source_id"].to_pylist()])
    region, model = asset.regions["upper_face"], FaceModel(asset)
    names = ("shape", "expression", "jaw_pose")
    ours = region_displacements(model, *(vector_array(found[name]) for name in names), region)
    theirs = region_displacements(model, *(vector_array(true[name])[rows] for name in names), region)
    labels = np.array(found["emotion"].to_pylist())
    by_emotion = {
        emotion.label: rounded(correlation(ours[labels == emotion.label], theirs[labels == emotion.label]))
        for emotion in Emotion
        if (labels == emotion.label).any()
    }
    return {
        "upper_face_correlation": by_emotion | {"all": rounded(correlation(ours, theirs))},
        "upper_face_mean_error_mm": rounded(float(np.linalg.norm(ours - theirs, axis=-1).mean()) * 1000),
        "n_faces": len(rows),
        "weak": [name for name, value in by_emotion.items() if value < WEAK_CORRELATION],
    }


def chin_angle_accuracy(vocateeth: Path, truth: Path) -> dict[str, float]:
    """The chin-rule angle against the true jaw rotation, over all frames of VOCATeeth.

    Args:
        vocateeth: the dataset.
        truth: clip_id, frame (at 60 frames per second) and jaw_angle (radians).
    """
    dataset = VocaTeeth.open(vocateeth)
    table = read_table(truth).to_pandas()
    true = {clip_id: rows.sort_values("frame")["jaw_angle"].to_numpy() for clip_id, rows in table.groupby("clip_id")}
    step = NATIVE_FPS // dataset.fps
    measured = np.concatenate([dataset.angles(clip) for clip in dataset.clips])
    expected = np.concatenate([true[clip.clip_id][::step][: clip.frames] for clip in dataset.clips])
    return {
        "correlation": rounded(correlation(measured, expected)),
        "mean_absolute_error_rad": rounded(float(np.abs(measured - expected).mean())),
        "n_frames": len(measured),
    }
