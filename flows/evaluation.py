"""Emotion tracks, predictions, benchmark and report."""

from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from prefect import flow

from ecavatar.animation.animator import Animator
from ecavatar.animation.motion import Motion
from ecavatar.animation.predictions import subject_file, write_predictions
from ecavatar.config import EmotionSettings
from ecavatar.errors import ConfigError
from ecavatar.evaluation.benchmark import BenchmarkSources, run_benchmark
from ecavatar.evaluation.methods import METHODS, NETWORK_FREE, Method, animated_motion, mean_displacement, still_motion
from ecavatar.evaluation.protocol import CORPORA, Corpus, SpokenClip, neutral_face, spoken_clips
from ecavatar.evaluation.summary import ReportSources, build_report
from ecavatar.face.model import FaceAsset
from ecavatar.speech.track import LabelRule
from ecavatar.speech.track_table import read_tracks, track_clips, write_tracks
from ecavatar.vocateeth.dataset import VocaTeeth
from flows._run import main, seed, shard_task, stage_settings, wait_all
from flows.paths import ProfilePaths

Name = TypeVar("Name", bound=str)


def corpus_root(paths: ProfilePaths, corpus: Corpus) -> Path:
    """Folder of an evaluation corpus."""
    return {"vocaset": paths.vocaset, "ravdess": paths.ravdess, "mead": paths.mead}[corpus]


@shard_task(name="track_corpus")
def _track(corpus: Corpus, profile: str, settings: EmotionSettings) -> int:
    paths = ProfilePaths(profile)
    clips = {clip.clip_id: clip.sound() for clip in spoken_clips(corpus, corpus_root(paths, corpus))}
    tracks = track_clips(paths.emotion2vec, clips, settings.window_seconds, LabelRule.of(settings))
    write_tracks(paths.emotions(corpus), tracks)
    return len(tracks)


@flow(name="track_emotions")
def track_emotions(profile: str, corpus: str) -> str:
    """Recognise emotion and level along every clip of one corpus, once."""
    clips = _track.submit(_known(corpus, CORPORA, "corpus"), profile, stage_settings(profile).emotions).result()
    return f"{clips} clips"


@shard_task(name="predict_subject")
def _predict_subject(method: Method, corpus: Corpus, subject: str, profile: str) -> int:
    torch.set_num_threads(1)  # sums of several threads end in other bits; tasks run side by side instead
    paths = ProfilePaths(profile)
    asset = _asset(paths.face_model)
    clips = [clip for clip in _clips(profile, corpus) if clip.subject == subject]
    neutral = neutral_face(corpus, subject, corpus_root(paths, corpus), paths.faces / "portraits.parquet", asset)
    motions: list[tuple[str, Motion]] = []
    if method in NETWORK_FREE:
        offset = _mean_displacement(paths.vocateeth) if method == "train-mean" else 0.0
        motions = [(clip.clip_id, still_motion(clip, neutral, asset, offset)) for clip in clips]
    else:
        tracks = read_tracks(paths.emotions(corpus)) if method == "ours-recognised" else {}
        animator = _animator(profile)
        motions = [
            (clip.clip_id, animated_motion(method, clip, neutral, animator, tracks.get(clip.clip_id))) for clip in clips
        ]
    write_predictions(subject_file(paths.predictions(method), corpus, subject), motions)
    return len(clips)


@flow(name="predict")
def predict(profile: str, method: str) -> str:
    """Let one method animate every clip of the three corpora."""
    name = _known(method, METHODS, "method")
    jobs = [
        (corpus, subject)
        for corpus in CORPORA
        for subject in sorted({clip.subject for clip in _clips(profile, corpus)})
    ]
    counts = wait_all([_predict_subject.submit(name, corpus, subject, profile) for corpus, subject in jobs])
    return f"{sum(counts)} clips of {len(jobs)} subjects"


@shard_task(name="score_predictions")
def _benchmark(profile: str) -> str:
    paths = ProfilePaths(profile)
    sources = BenchmarkSources(
        face_model=paths.face_model,
        vocaset=paths.vocaset,
        corpora={corpus: corpus_root(paths, corpus) for corpus in CORPORA},
        predictions={method: paths.predictions(method) for method in METHODS},
        faces=paths.faces,
        vocateeth=paths.vocateeth,
        truth=paths.truth,
        emotions={corpus: paths.emotions(corpus) for corpus in CORPORA},
    )
    settings = stage_settings(profile).benchmark
    return run_benchmark(sources, settings, seed(), metrics=paths.metrics, per_clip=paths.per_clip)


@flow(name="benchmark")
def benchmark(profile: str) -> str:
    """Score every prediction against the truth: LVE and EVE with confidence intervals."""
    return _benchmark.submit(profile).result()


@shard_task(name="draw_report")
def _report(profile: str) -> str:
    paths = ProfilePaths(profile)
    sources = ReportSources(
        profile=profile,
        face_model=paths.face_model,
        affectnet=paths.affectnet,
        vocaset=paths.vocaset,
        selection=paths.selection,
        faces=paths.faces,
        emolib=paths.emolib,
        vocateeth=paths.vocateeth,
        pairs=paths.pairs,
        predictions={method: paths.predictions(method) for method in METHODS},
        corpora={corpus: corpus_root(paths, corpus) for corpus in CORPORA},
        speech_figures=paths.speech_figures,
        metrics=paths.metrics,
        curves={name: paths.training_curve(name) for name in ("selftalk", "funet")},
    )
    settings = stage_settings(profile).report
    return build_report(sources, settings, dataset=paths.dataset, figures=paths.figures, page=paths.report)


@flow(name="report")
def report(profile: str) -> str:
    """Draw the figures and write the report page."""
    return _report.submit(profile).result()


@lru_cache(maxsize=len(CORPORA))
def _clips(profile: str, corpus: Corpus) -> list[SpokenClip]:
    return spoken_clips(corpus, corpus_root(ProfilePaths(profile), corpus))


@lru_cache(maxsize=1)
def _asset(path: Path) -> FaceAsset:
    return FaceAsset.load(path)


@lru_cache(maxsize=1)
def _mean_displacement(path: Path):  # noqa: ANN202 (an array)
    return mean_displacement(VocaTeeth.open(path))


@lru_cache(maxsize=1)
def _animator(profile: str) -> Animator:
    paths = ProfilePaths(profile)
    return Animator.load(
        face_model=paths.face_model,
        emolib=paths.emolib,
        selftalk=paths.selftalk,
        funet=paths.funet,
        settings=stage_settings(profile).predict,
    )


def _known(name: str, names: tuple[Name, ...], what: str) -> Name:
    for known in names:
        if known == name:
            return known
    raise ConfigError(f"unknown {what} {name!r}; expected one of: {', '.join(names)}.")


if __name__ == "__main__":
    main(track_emotions, predict, benchmark, report)
