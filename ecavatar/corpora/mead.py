"""MEAD as it ships: films in <id>/video/<view>/<emotion>/level_<n>/, sound in <id>/audio/<emotion>/level_<n>/.

Reality is looser than that: some subjects have an extra folder level or another name for `video`, so a film is
known by the parts of its path, wherever they stand. Source: Wang et al., ECCV 2020.
"""

import re
from pathlib import Path

from ecavatar.corpora.clips import ClipListing, SpeechClip
from ecavatar.emotion import MEAD_EMOTIONS
from ecavatar.errors import AssetMissingError
from ecavatar.storage.rejects import Reject

STAGE = "read_mead"
VIEWS = ("front", "down", "top", "left_30", "left_60", "right_30", "right_60")
_SUBJECT = re.compile(r"[MW]\d{3}")
_LEVEL = re.compile(r"level_([123])")
_SOUNDS = {".m4a", ".wav", ".aac", ".mp3"}


def list_clips(root: Path) -> list[SpeechClip]:
    """The takes seen from the front below `root`, sorted by clip_id; see `read_listing`."""
    return read_listing(root).clips


def read_listing(root: Path) -> ClipListing:
    """The takes seen from the front, and the files whose place is not MEAD's.

    clip_id is <subject>_<emotion folder>_level_<n>_<nnn>. MEAD's folders do not tell the sentence: it is empty. A take
    without a film is a clip with `video=None`; a film without a sound file is rejected.

    Raises:
        AssetMissingError: no such folder, or no take in it.
    """
    if not root.is_dir():
        raise AssetMissingError(f"MEAD folder {root} not found. Expected <subject>/video/front/<emotion>/level_<n>/.")
    films, sounds, rejects = {}, {}, []
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _SOUNDS | {".mp4"} and p.is_file()):
        parts = path.relative_to(root).parts
        is_film = path.suffix.lower() == ".mp4"
        if is_film and any(view in parts for view in VIEWS[1:]):
            continue
        key = _key(parts)
        if key is None:
            detail = "expected a subject, an emotion and a level folder in the path"
            rejects.append(Reject("/".join(parts), STAGE, "bad_path", detail))
        else:
            (films if is_film else sounds)[key] = path
    if not sounds:
        raise AssetMissingError(f"no MEAD take below {root}. Expected <subject>/audio/<emotion>/level_<n>/<nnn>.m4a.")
    mute = sorted(set(films) - set(sounds))
    rejects += [Reject(_clip_id(key), STAGE, "no_audio", "the film has no sound file beside it") for key in mute]
    return ClipListing([_clip(key, films.get(key), sounds[key]) for key in sorted(sounds)], rejects)


def _key(parts: tuple[str, ...]) -> tuple[str, str, int, str] | None:
    """Subject, emotion folder, level and number of a file; None where one cannot be told."""
    subject = next((part for part in parts if _SUBJECT.fullmatch(part)), None)
    emotion = next((part for part in parts if part in MEAD_EMOTIONS), None)
    level = next((match for part in parts if (match := _LEVEL.fullmatch(part))), None)
    if subject is None or emotion is None or level is None:
        return None
    return subject, emotion, int(level[1]), Path(parts[-1]).stem


def _clip_id(key: tuple[str, str, int, str]) -> str:
    subject, emotion, level, number = key
    return f"{subject}_{emotion}_level_{level}_{number}"


def _clip(key: tuple[str, str, int, str], film: Path | None, sound: Path) -> SpeechClip:
    return SpeechClip(
        clip_id=_clip_id(key),
        corpus="mead",
        subject=key[0],
        emotion=MEAD_EMOTIONS[key[1]],
        level=key[2],
        sentence="",
        video=film,
        audio=sound,
    )
