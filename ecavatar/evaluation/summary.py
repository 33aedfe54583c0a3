"""Everything a commit built, gathered into dataset.json, figures and the report page."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ecavatar.animation.motion import Motion
from ecavatar.animation.predictions import read_predictions, subject_file
from ecavatar.config import ReportSettings
from ecavatar.emolib.dataset import read_emolib
from ecavatar.emolib.selection import LEVEL_FACTS
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.evaluation.emotion_accuracy import EmotionAccuracy
from ecavatar.evaluation.emotion_pictures import emotion_figures
from ecavatar.evaluation.figures import write_arousal, write_curves, write_errors, write_fill
from ecavatar.evaluation.methods import METHODS, Method
from ecavatar.evaluation.mouth_report import draw_mouths, mouth_facts
from ecavatar.evaluation.pictures import draw_emolib, draw_emotions, draw_motions, draw_reconstruction
from ecavatar.evaluation.protocol import Corpus, SpokenClip, spoken_clips
from ecavatar.evaluation.published import TABLE_1
from ecavatar.evaluation.report import FigureEntry, Page, write_report
from ecavatar.evaluation.truth import vocaset_truth
from ecavatar.face.model import FaceAsset
from ecavatar.storage.files import atomic_path, read_json, sha256_file, write_json
from ecavatar.storage.parquet import read_table
from ecavatar.storage.rejects import read_rejects
from ecavatar.storage.shards import read_shards
from ecavatar.vocateeth.dataset import VocaTeeth

CURVES = ("train_loss", "val_loss")
"""Columns of training/*.csv that are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSources:
    """Where the report reads."""

    profile: str
    face_model: Path
    affectnet: Path
    vocaset: Path
    selection: Path
    faces: Path
    emolib: Path
    vocateeth: Path
    pairs: Path
    predictions: Mapping[Method, Path]
    corpora: Mapping[Corpus, Path]
    speech_figures: Path
    metrics: Path
    curves: Mapping[str, Path]


def build_report(sources: ReportSources, settings: ReportSettings, *, dataset: Path, figures: Path, page: Path) -> str:
    """Write dataset.json, the figures and the self-contained page.

    Returns:
        One line on what was written.
    """
    clips = {corpus: spoken_clips(corpus, root) for corpus, root in sources.corpora.items()}
    facts = dataset_facts(sources, clips)
    metrics = read_json(sources.metrics)
    with atomic_path(figures) as temporary:
        temporary.mkdir()
        entries = list(_draw_all(sources, settings, metrics, clips["mead"], facts["emolib"]["items"], temporary))
        content = Page(
            profile=sources.profile,
            built=_built(facts),
            counts={
                name: [levels[str(level)] for level in LEVELS] for name, levels in facts["emolib"]["items"].items()
            },
            available=_available(read_json(sources.selection / LEVEL_FACTS)),
            table_1={emotion.label: counts for emotion, counts in TABLE_1.items()},
            rejects=[(r["stage"], r["reason"], r["count"]) for r in facts["rejects"]],
            benchmark=_ordered(metrics["errors"]),
            findings=[*findings(metrics), *(_best_epoch(name, path) for name, path in sources.curves.items())],
            speech=_speech_rows(sources.speech_figures),
            mouths=facts["vocateeth"]["mouth"],
            figures=entries,
        )
        write_report(page, content)
    write_json(dataset, facts)
    return f"{len(entries)} figures, {page}"


def dataset_facts(sources: ReportSources, clips: Mapping[Corpus, Sequence[SpokenClip]]) -> dict:
    """Counts, rejects by reason and checksums of what was built, as json values."""
    items = read_emolib(sources.emolib).select(["emotion", "level"]).to_pandas()
    counts = items.value_counts()
    teeth = VocaTeeth.open(sources.vocateeth)
    splits = pd.Series([clip.split or "unused" for clip in teeth.clips]).value_counts()
    frames = pd.Series([clip.frames for clip in teeth.clips], index=[clip.split or "unused" for clip in teeth.clips])
    rejects = pd.concat(
        [read_rejects(path / "rejects.parquet") for path in (sources.selection, sources.faces, sources.vocateeth)]
    )
    return {
        "emolib": {
            "items": {
                emotion.label: {str(level): int(counts.get((emotion.label, level), 0)) for level in LEVELS}
                for emotion in Emotion
            },
            "total": len(items),
            "manifest_sha256": sha256_file(sources.emolib / "MANIFEST.json"),
        },
        "funet_pool": {"faces": read_shards(sources.faces / "pool", ["item_id"]).num_rows},
        "vocateeth": {
            "clips": {str(name): int(count) for name, count in sorted(splits.items())},
            "frames": {str(name): int(count) for name, count in frames.groupby(level=0).sum().items()},
            "fps": teeth.fps,
            "mouth": mouth_facts(teeth),
            "manifest_sha256": sha256_file(sources.vocateeth / "MANIFEST.json"),
        },
        "pairs": {path.stem: read_table(path).num_rows for path in sorted(sources.pairs.glob("*.parquet"))},
        "evaluation_clips": {name: len(found) for name, found in clips.items()},
        "rejects": [
            {"stage": stage, "reason": reason, "count": count}
            for (stage, reason), count in sorted(Counter(zip(rejects["stage"], rejects["reason"], strict=True)).items())
        ],
    }


def findings(metrics: Mapping) -> list[str]:
    """What the numbers show, in sentences that follow from them."""
    errors = metrics["errors"]
    lines = [
        _verdict(errors["vocaset"], "lve_m2", "selftalk", other, "VOCASET LVE") for other in ("train-mean", "neutral")
    ]
    lines += [
        _verdict(errors[corpus], "eve_m2", ours, "neutral", f"{corpus.upper()} EVE")
        for corpus in ("ravdess", "mead")
        for ours in ("ours-given", "ours-recognised")
    ]
    return [*lines, *_measurements(metrics)]


def _verdict(methods: Mapping, metric: str, ours: str, reference: str, name: str) -> str:
    mine, theirs = methods[ours][metric]["mean"], methods[reference][metric]["mean"]
    comparison = "lower than" if mine < theirs else "NOT lower than"
    return (
        f"{name}: {ours} {mine * 1e5:.3g}e-5 m² is {comparison} {reference} {theirs * 1e5:.3g}e-5 m² "
        f"(ratio {mine / theirs:.2f})."
    )


def _measurements(metrics: Mapping) -> Iterator[str]:
    faces, chin = metrics["reconstruction"], metrics["chin_angle"]
    yield (
        f"Upper faces reconstructed from pictures correlate {faces['upper_face_correlation']['all']:.2f} with the "
        f"truth over {faces['n_faces']} faces; categories below 0.5: {', '.join(faces['weak']) or 'none'}."
    )
    yield (
        f"The chin rule's angle correlates {chin['correlation']:.3f} with the true jaw rotation over "
        f"{chin['n_frames']} frames, mean error {math.degrees(chin['mean_absolute_error_rad']):.2f} degrees."
    )


def _best_epoch(name: str, curve: Path) -> str:
    losses = pd.read_csv(curve)[["epoch", "val_loss"]].dropna()
    best = losses.loc[losses["val_loss"].idxmin()]
    end = "; epoch 0 is the state before training" if best["epoch"] == 0 else ""
    place = f"epoch {best['epoch']:.0f} of {losses['epoch'].max():.0f}"
    return f"{name}: lowest validation loss {best['val_loss']:.3g} at {place}{end}."


def _ordered(errors: Mapping) -> dict:
    return {
        corpus: {method: methods[method] for method in METHODS if method in methods}
        for corpus, methods in errors.items()
    }


def _built(facts: Mapping) -> list[tuple[str, str]]:
    teeth = facts["vocateeth"]
    clips = ", ".join(f"{name} {count}" for name, count in teeth["clips"].items())
    return [
        ("Emolib", f"{facts['emolib']['total']} faces with coefficients, labels and levels"),
        ("FuNet pool", f"{facts['funet_pool']['faces']} emotional faces, disjoint from Emolib"),
        ("VOCATeeth", f"{sum(teeth['frames'].values())} frames at {teeth['fps']} fps (clips: {clips})"),
        ("FuNet pairs", ", ".join(f"{name} {count}" for name, count in facts["pairs"].items())),
        ("Predicted clips per method", ", ".join(f"{n} {c}" for n, c in facts["evaluation_clips"].items())),
    ]


def _recognised(sources: ReportSources, metrics: Mapping) -> dict[str, EmotionAccuracy]:
    """How well emotions were heard, by collection; the stand-in's own held-out voices first."""
    held_out = read_json(sources.speech_figures).get("emotion2vec") if sources.speech_figures.is_file() else None
    scores = {"held-out voices": held_out} if held_out else {}
    scores |= {corpus.upper(): row for corpus, row in metrics["emotion_from_speech"].items()}
    return {name: EmotionAccuracy.from_json(row) for name, row in scores.items()}


def _speech_rows(path: Path) -> dict[str, object]:
    """Figures of the stand-ins, without the recogniser of emotions, which has pictures of its own."""
    if not path.is_file():
        return {}
    return dict(_flattened({name: row for name, row in read_json(path).items() if name != "emotion2vec"}))


def _flattened(value: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flattened(inner, f"{prefix}{key}.")
        elif isinstance(inner, list):
            yield prefix + key, "; ".join(f"“{one['said']}” heard as “{one['heard']}”" for one in inner)
        else:
            yield prefix + key, f"{inner:.3g}" if isinstance(inner, float) else inner


def _draw_all(
    sources: ReportSources,
    settings: ReportSettings,
    metrics: Mapping,
    acted: Sequence[SpokenClip],
    items: Mapping[str, Mapping[str, int]],
    out: Path,
) -> Iterator[FigureEntry]:
    asset, size = FaceAsset.load(sources.face_model), settings.picture_px
    faces = read_shards(sources.faces / "emolib")
    draw_reconstruction(out / "reconstruction.png", faces, sources.affectnet, asset, size)
    yield FigureEntry(
        title="From picture to face",
        caption="The strongest image of each category, its face laid over it (neck and scalp left out), the face at "
        "head pose zero, and the same face made neutral.",
        path=out / "reconstruction.png",
    )
    draw_emolib(out / "emolib.png", read_emolib(sources.emolib), asset, size)
    yield FigureEntry(title="Emolib", caption="One item per category and level.", path=out / "emolib.png")
    levels = read_json(sources.selection / LEVEL_FACTS)
    write_arousal(out / "arousal.png", levels)
    yield FigureEntry(
        title="Arousal and its levels",
        caption=f"Usable annotations per category, coloured by level; cuts by the rule “{levels['rule']}”.",
        path=out / "arousal.png",
    )
    write_fill(out / "levels.png", levels, items)
    yield FigureEntry(
        title="How full the levels are",
        caption="Emolib's items beside the paper's Table 1, each as a share of what is drawn at most.",
        path=out / "levels.png",
    )
    write_curves(
        out / "training.png",
        {name: pd.read_csv(path) for name, path in sources.curves.items()},
        x="epoch",
        columns=CURVES,
    )
    yield FigureEntry(title="Training", caption="Losses by epoch.", path=out / "training.png")
    write_errors(out / "errors.png", _ordered(metrics["errors"]))
    yield FigureEntry(title="Errors", caption="Mean and 95 % interval over subjects.", path=out / "errors.png")
    for name, heard in emotion_figures(out, _recognised(sources, metrics)).items():
        yield FigureEntry(title=f"Emotion from speech: {name}", caption=heard["sentence"], path=out / heard["picture"])
    yield from _draw_speech(sources, asset, size, acted, out)


def _draw_speech(
    sources: ReportSources, asset: FaceAsset, size: int, acted: Sequence[SpokenClip], out: Path
) -> Iterator[FigureEntry]:
    teeth = VocaTeeth.open(sources.vocateeth)
    yield from draw_mouths(teeth, asset, size, out)
    clip = teeth.of_split("test")[0]
    truth = dict(vocaset_truth(sources.vocaset, asset.topology))[clip.clip_id]
    motions = {"recorded": truth} | {
        method: _prediction(sources, method, "vocaset", clip.subject, clip.clip_id)
        for method in ("selftalk", "ours-given")
    }
    draw_motions(out / "lips.png", motions, asset, size)
    yield FigureEntry(title="Lips", caption=f"Moments of {clip.clip_id}, an unseen subject.", path=out / "lips.png")
    chosen = {}
    for spoken in acted:
        best = chosen.get(spoken.label.emotion)
        if best is None or spoken.label.level > best.label.level:
            chosen[spoken.label.emotion] = spoken
    named = [
        (f"{c.label.emotion.label} {c.label.level}", _prediction(sources, "ours-given", "mead", c.subject, c.clip_id))
        for _, c in sorted(chosen.items())
    ]
    draw_emotions(out / "emotions.png", named, asset, size)
    yield FigureEntry(
        title="Speaking with emotion",
        caption="Middle frame of one MEAD clip per category, animated from its sound and one neutral picture.",
        path=out / "emotions.png",
    )


def _prediction(sources: ReportSources, method: Method, corpus: Corpus, subject: str, clip_id: str) -> Motion:
    return dict(read_predictions(subject_file(sources.predictions[method], corpus, subject)))[clip_id]


def _available(levels: Mapping) -> dict[str, list[int]]:
    """Usable annotations per category and level."""
    rows = levels["emotions"]
    return {e.label: [rows[e.label]["available"][str(n)] for n in LEVELS] for e in Emotion if e.label in rows}
