"""What study `mouth` found, as files: json and csv for programs, a page and two pictures for people."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecavatar.evaluation.figures import BLUE, GREEN, GREY, ORANGE, STYLE, save_figure
from ecavatar.evaluation.mouth_pictures import draw_angles
from ecavatar.evaluation.mouth_study import (
    PAPER_MM,
    RULE,
    SCAN_NOISE_MM,
    SKIN_FRAMES_PER_SECOND,
    TRUE_JAW,
    GapTrack,
    MouthStudy,
    patch_name,
)
from ecavatar.evaluation.scoring import rounded
from ecavatar.storage.files import atomic_path, write_json

_ANGLE_COLUMNS = {
    "correlation": "correlation",
    "rmse_deg": "RMSE, deg",
    "mean_absolute_error_deg": "mean error, deg",
    "max_absolute_error_deg": "largest error, deg",
    "bias_deg": "bias, deg",
    "gain": "gain",
    "jitter_deg": "jitter, deg",
    "agreement_rms_deg": "from single vertices, deg",
}
_GAP_COLUMNS = {
    "above_mean_mm": "above the lip, mm",
    "above_std_mm": "std",
    "above_range_mm": "range",
    "behind_mean_mm": "behind the lip, mm",
    "behind_std_mm": "std",
    "behind_range_mm": "range",
    "in_front_share": "frames in front of the lip",
    "incisor_error_mean_mm": "incisor's error, mm",
    "incisor_error_max_mm": "largest",
    "through_skin_share": "frames through the skin",
    "through_skin_max_mm": "deepest, mm",
}


def write_mouth_study(directory: Path, study: MouthStudy) -> None:
    """Write `study.json`, four tables (csv), `README.md` and three pictures.

    Args:
        directory: appears whole or not at all; replaced where it is there.
        study: what was found.
    """
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        for name in ("variants", "subjects", "clips", "gaps"):
            table = getattr(study, name)
            table.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        write_json(temporary / "study.json", study_facts(study))
        (temporary / "README.md").write_text(study_page(study), encoding="utf-8")
        write_variants(temporary / "variants.png", study)
        write_gap(temporary / "gap.png", study.example)
        draw_angles(temporary / "angles.png", study.curves)


def study_facts(study: MouthStudy) -> dict[str, object]:
    """What the study found, as json values."""
    return {
        "rule": RULE,
        "recommended_patch_mm": study.recommended_mm,
        "subjects_better": study.subjects_better,
        "n_subjects": int(study.subjects["subject"].nunique()),
        "n_clips": int(study.clips["clip_id"].nunique()),
        "clips_left_out": list(study.left_out),
        "scan_noise_mm": SCAN_NOISE_MM,
        "points": {f"{patch:g}": {"chin": chin, "ear": ear} for patch, (chin, ear) in study.points.items()},
        "variants": _records(study.variants),
        "gaps": _records(study.gaps),
    }


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    """Rows as json values; what a row does not have is left out."""
    return [
        {key: rounded(value) if isinstance(value, float) else value for key, value in row.items() if not pd.isna(value)}
        for row in table.astype(object).to_dict("records")
    ]


# --- the page ---------------------------------------------------------------------------------------------------------


def study_page(study: MouthStudy) -> str:
    """The findings as Markdown."""
    counts = [study.clips["clip_id"].nunique(), study.subjects["subject"].nunique(), study.variants["frames"].iloc[0]]
    angle = (
        f"Jitter is the RMS of the second difference from frame to frame{_true_jitter(study)}. Gain is the slope of "
        "the true angle over the measured one. Noise is ours: normal, added to every coordinate of every vertex."
    )
    gap = (
        "From the middle of the inner lower lip to the edge of the lower central incisors, in the head's axes; figures "
        "within a subject, averaged over subjects. Teeth are rigid and lips are not, so the gap varies in truth, too. "
        f"Teeth outside the skin were looked for in {SKIN_FRAMES_PER_SECOND} frames of each second."
    )
    left_out = f"{len(study.left_out)} more have vertices that are not finite. " if study.left_out else ""
    parts = [
        "# Is the mouth's motion right?",
        "{} clips of {} subjects, {} frames. ".format(*counts) + left_out + study.verdict,
        f"## The angle\n\n{angle}",
        _angle_lines(study),
        "![](variants.png)\n\n![](angles.png)",
        f"## Lower teeth and lower lip\n\n{gap}",
        _table(study.gaps.set_index("variant"), _GAP_COLUMNS, "variant"),
        "![](gap.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _true_jitter(study: MouthStudy) -> str:
    if "true_jitter_deg" not in study.variants:
        return ""
    return f" (the true jaw's own: {study.variants['true_jitter_deg'].iloc[0]:.3f} degrees)"


def _angle_lines(study: MouthStudy) -> str:
    rows = study.variants.copy()
    points = [study.points[patch] for patch in rows["patch_mm"]]
    rows["name"] = [
        f"{patch_name(patch)} ({chin} at P, {ear} at Q), {'noise ' + format(noise, 'g') + ' mm' if noise else 'as is'}"
        for patch, noise, (chin, ear) in zip(rows["patch_mm"], rows["noise_mm"], points, strict=True)
    ]
    return _table(rows.set_index("name"), _ANGLE_COLUMNS, "variant")


def _table(rows: pd.DataFrame, columns: dict[str, str], first: str) -> str:
    shown = [name for name in columns if name in rows]
    head = [first, *(columns[name] for name in shown)]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * len(shown) + "|"]
    for name, row in rows[shown].iterrows():
        lines.append("| " + " | ".join([str(name), *map(_number, row)]) + " |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.4f}" if 0.99 < value < 1 else f"{value:.3f}"


# --- the pictures -----------------------------------------------------------------------------------------------------


def write_variants(path: Path, study: MouthStudy) -> None:
    """Error (where truth is known), jitter and, by subject, the paper's variant against the recommended one."""
    panels = [("jitter_deg", "jitter, degrees"), ("agreement_rms_deg", "RMS from single vertices, degrees")]
    if study.has_truth:
        panels = [("rmse_deg", "RMSE against the true jaw, degrees"), panels[0]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * (len(panels) + study.has_truth), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels) + study.has_truth, squeeze=False)[0]
        for panel, (column, label) in zip(axes, panels, strict=False):
            _draw_by_patch(panel, study.variants, column, label)
        if study.has_truth:
            _draw_subjects(axes[-1], study)
        save_figure(figure, path)


def _draw_by_patch(axes: Axes, variants: pd.DataFrame, column: str, label: str) -> None:
    names = [patch_name(patch) for patch in sorted(variants["patch_mm"].unique())]
    places = np.arange(len(names))
    for offset, noise, colour in ((-0.2, 0.0, BLUE), (0.2, SCAN_NOISE_MM, ORANGE)):
        rows = variants[variants["noise_mm"] == noise].sort_values("patch_mm")
        told = f"with {noise:g} mm of added noise" if noise else "as they are"
        axes.bar(places + offset, rows[column], 0.38, color=colour, label=told)
    axes.set_xticks(places, [name.replace("single vertices", "single") for name in names])
    axes.set(xlabel="patch around P and Q", ylabel=label)
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.3 * variants[column].max() or 1)
    axes.legend(fontsize=8, loc="upper left")


def _draw_subjects(axes: Axes, study: MouthStudy) -> None:
    noisy = study.subjects[study.subjects["noise_mm"] > 0]
    chosen = {f"{patch_name(PAPER_MM)} (paper)": (PAPER_MM, GREY)}
    if study.recommended_mm is not None and study.recommended_mm != PAPER_MM:
        chosen[f"{patch_name(study.recommended_mm)} (recommended)"] = (study.recommended_mm, GREEN)
    for name, (patch, colour) in chosen.items():
        rows = noisy[noisy["patch_mm"] == patch].sort_values("subject")
        axes.plot(rows["rmse_deg"], np.arange(len(rows)), "o", color=colour, label=name, ms=5)
    names = sorted(noisy["subject"].unique())
    axes.set_yticks(np.arange(len(names)), [name.removeprefix("FaceTalk_") for name in names], fontsize=7)
    axes.set(xlabel="RMSE with added noise, degrees", ylim=(len(names) - 0.3, -1.9 - 0.4 * len(chosen)))
    shown = noisy["patch_mm"].isin([patch for patch, _ in chosen.values()])
    axes.set_xlim(0, 1.08 * noisy.loc[shown, "rmse_deg"].max())
    axes.legend(fontsize=8, loc="upper left")


def write_gap(path: Path, track: GapTrack) -> None:
    """How far the lower incisors stand above and behind the lower lip along one clip, by variant."""
    colours = (BLUE, GREEN, "#9467bd", "#b04a5a", GREY)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        panels = figure.subplots(2, 1, sharex=True)
        for axes, part, sign, label in zip(panels, (1, 2), (1, -1), ("above", "behind"), strict=True):
            variants = [name for name in track.gaps if name != TRUE_JAW]
            for name, colour in zip(variants, colours, strict=False):
                values = sign * track.gaps[name][:, part] * 1000
                axes.plot(np.arange(len(values)) / track.fps, values, color=colour, lw=1.1, label=name)
            if TRUE_JAW in track.gaps:
                values = sign * track.gaps[TRUE_JAW][:, part] * 1000
                axes.plot(np.arange(len(values)) / track.fps, values, color=ORANGE, lw=1.8, ls="--", label=TRUE_JAW)
            axes.set(ylabel=f"{label} the lip, mm")
        panels[0].set_title(f"edge of the lower incisors, {track.clip_id}", fontsize=10)
        panels[1].set_xlabel("seconds")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center", fontsize=8)
        save_figure(figure, path)
