"""Predictions against truth, clip by clip, and their summary."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from ecavatar.animation.motion import Motion
from ecavatar.errors import DataError
from ecavatar.evaluation.confidence import subject_bootstrap
from ecavatar.evaluation.vertex_error import emotional_vertex_error, lip_vertex_error, trim_to_shorter

METRICS = ("lve_m2", "eve_m2")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipScore:
    """Errors of one method on one clip; an error that does not apply is None."""

    corpus: str
    method: str
    subject: str
    clip_id: str
    emotion: str
    level: int
    frames: int
    trimmed_frames: int
    lve_m2: float | None = None
    eve_m2: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What is known of a clip besides its motion."""

    corpus: str
    subject: str
    clip_id: str
    emotion: str
    level: int


def score_clip(
    facts: ClipFacts,
    method: str,
    predicted: Motion,
    truth: Motion,
    *,
    lips: Int[np.ndarray, "k"] | None = None,
    upper_face: Int[np.ndarray, "k"] | None = None,
) -> ClipScore:
    """LVE inside `lips` and EVE inside `upper_face` of one clip, each where its region is given.

    Raises:
        DataError: the frame rates differ.
        TopologyError: the topologies differ.
    """
    predicted.require_topology(truth.topology)
    if predicted.fps != truth.fps:
        raise DataError(f"{facts.clip_id}: predicted at {predicted.fps} fps, truth at {truth.fps}; resample first.")
    ours, true, trimmed = trim_to_shorter(predicted.vertices, truth.vertices)
    lve = None if lips is None else float(lip_vertex_error(ours, true, lips).mean())
    eve = (
        None
        if upper_face is None
        else float(emotional_vertex_error(ours, predicted.template, true, truth.template, upper_face).mean())
    )
    return ClipScore(**asdict(facts), method=method, frames=len(ours), trimmed_frames=trimmed, lve_m2=lve, eve_m2=eve)


def score_table(scores: Iterable[ClipScore]) -> pd.DataFrame:
    """One row per clip and method, sorted, as written to per_clip.csv."""
    table = pd.DataFrame([asdict(score) for score in scores], columns=list(ClipScore.__dataclass_fields__))
    return table.sort_values(["corpus", "method", "subject", "clip_id"], ignore_index=True)


def summarise(table: pd.DataFrame, *, samples: int, seed: int) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Corpus -> method -> metric -> mean, ci95 and counts.

    The mean is pooled over frames (CodeTalker's convention); the interval resamples subjects. Numbers are rounded to
    six significant digits, so that a difference between two commits is a real one.
    """
    summary: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for corpus, method in sorted(set(zip(table["corpus"], table["method"], strict=True))):
        clips = table[(table["corpus"] == corpus) & (table["method"] == method)]
        metrics = {}
        for name in METRICS:
            scored = clips.dropna(subset=[name])
            if not scored.empty:
                metrics[name] = _interval(scored, name, samples, seed)
        summary.setdefault(str(corpus), {})[str(method)] = metrics
    return summary


def _interval(clips: pd.DataFrame, name: str, samples: int, seed: int) -> dict[str, float]:
    low, high = subject_bootstrap(clips, name, samples=samples, seed=seed)
    return {
        "mean": rounded(np.average(clips[name], weights=clips["frames"])),
        "ci95_low": rounded(low),
        "ci95_high": rounded(high),
        "n_clips": len(clips),
        "n_frames": int(clips["frames"].sum()),
        "n_subjects": int(clips["subject"].nunique()),
    }


def rounded(value: float, digits: int = 6) -> float:
    """`value` with `digits` significant digits."""
    return float(f"{value:.{digits}g}")


def compare(
    summary: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]], reference: str
) -> dict[str, dict[str, float]]:
    """Per corpus: each method's mean error as a multiple of the `reference` method's (below 1 is better)."""
    ratios: dict[str, dict[str, float]] = {}
    for corpus, methods in summary.items():
        for method, metrics in methods.items():
            for name, figures in metrics.items():
                base = methods.get(reference, {}).get(name)
                if base and method != reference:
                    ratios.setdefault(corpus, {})[f"{method}.{name}"] = rounded(figures["mean"] / base["mean"])
    return ratios
