"""RAVDESS as it ships: everything about a take is in its file name.

Name = seven two-digit fields: modality (01 picture and sound, 02 picture, 03 sound), channel (01 speech, 02 song),
emotion, intensity, statement, repetition, actor. Source: Livingstone and Russo, PLOS ONE 2018; Zenodo record 1188976.
"""

from pathlib import Path

from ecavatar.corpora.clips import ClipListing, SpeechClip
from ecavatar.emotion import RAVDESS_EMOTIONS, RAVDESS_LEVELS
from ecavatar.errors import AssetMissingError
from ecavatar.storage.rejects import Reject

STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
"""Fifth field of a file name."""

STAGE = "read_ravdess"


def list_clips(root: Path) -> list[SpeechClip]:
    """The spoken takes below `root`, sorted by clip_id; see `read_listing`."""
    return read_listing(root).clips


def read_listing(root: Path) -> ClipListing:
    """The spoken takes below `root` (any folder depth) and the files whose names are no RAVDESS names.

    The same take may be there up to three times (modalities 01, 02, 03): it becomes one clip. Its picture is 01's, else
    02's; its sound is 03's, else 01's. Songs are left out. clip_id is the file name's last six fields.

    Raises:
        AssetMissingError: no such folder, or it holds no file with a RAVDESS name.
    """
    if not root.is_dir():
        raise AssetMissingError(f"RAVDESS folder {root} not found. Expected Actor_NN folders of .mp4 and .wav files.")
    takes: dict[str, dict[str, Path]] = {}
    rejects = []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in {".mp4", ".wav"} and p.is_file()):
        problem = _problem(path)
        if problem:
            rejects.append(Reject(path.relative_to(root).as_posix(), STAGE, "bad_name", problem))
            continue
        modality, clip_id = path.stem[:2], path.stem[3:]
        takes.setdefault(clip_id, {})[modality] = path
    spoken = {clip_id: files for clip_id, files in takes.items() if clip_id[:2] == "01"}
    if not spoken:
        raise AssetMissingError(
            f"no RAVDESS speech file below {root}. Expected names such as 01-01-03-02-01-01-07.mp4."
        )
    silent = [clip_id for clip_id, files in spoken.items() if set(files) == {"02"}]
    rejects += [Reject(clip_id, STAGE, "no_audio", "only the silent film (modality 02) is there") for clip_id in silent]
    return ClipListing([_clip(clip_id, spoken[clip_id]) for clip_id in sorted(set(spoken) - set(silent))], rejects)


def _problem(path: Path) -> str:
    """What is wrong with a file's name; empty where nothing is."""
    fields = path.stem.split("-")
    if len(fields) != 7 or not all(len(f) == 2 and f.isdecimal() for f in fields):
        return "expected seven two-digit fields joined by '-'"
    modality, channel, emotion, intensity, statement, _, actor = fields
    known = {
        "modality": (modality, ("01", "02", "03")),
        "channel": (channel, ("01", "02")),
        "emotion": (emotion, tuple(RAVDESS_EMOTIONS)),
        "intensity": (intensity, tuple(RAVDESS_LEVELS)),
        "statement": (statement, tuple(STATEMENTS)),
        "actor": (actor, tuple(f"{n:02d}" for n in range(1, 25))),
    }
    return "; ".join(f"{name} {seen} is not defined" for name, (seen, allowed) in known.items() if seen not in allowed)


def _clip(clip_id: str, files: dict[str, Path]) -> SpeechClip:
    _, emotion, intensity, statement, _, actor = clip_id.split("-")
    return SpeechClip(
        clip_id=clip_id,
        corpus="ravdess",
        subject=f"Actor_{actor}",
        emotion=RAVDESS_EMOTIONS[emotion],
        level=RAVDESS_LEVELS[intensity],
        sentence=STATEMENTS[statement],
        video=files.get("01", files.get("02")),
        audio=files.get("03", files.get("01", Path())),
    )
