"""How strongly each emotion sounds in a clip, by emotion2vec run through funasr."""

import contextlib
import io
import logging
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from ecavatar.emotion import EMOTION2VEC_EMOTIONS, EMOTION2VEC_LABELS
from ecavatar.errors import AssetMissingError, DataError, MissingDependencyError
from ecavatar.speech.audio import SPEECH_RATE, resample

MODEL_FILES: Final = ("config.yaml", "model.pt", "tokens.txt")
"""What a funasr directory of emotion2vec holds."""

PUBLISHED: Final[tuple[str, ...]] = (
    "iic/emotion2vec_base_finetuned",
    "iic/emotion2vec_plus_seed",
    "iic/emotion2vec_plus_base",
    "iic/emotion2vec_plus_large",
)
"""Ids of published models with nine classes; the first is the one that a paper of mid 2024 could have used."""

_SPEC: Final = re.compile(r"[\d\s,+*()\[\]]+")
_SHORTEST: Final = 3200  # samples; 0.2 s is about a syllable, less says nothing


def recognise_emotions(
    model: str | Path, clips: Sequence[tuple[NDArray[np.floating], int]], *, device: str = "cpu"
) -> NDArray[np.float64]:
    """Scores of the nine emotion2vec classes for each clip, (N, 9) in `EMOTION2VEC_LABELS` order; rows sum to 1.

    funasr takes 15 to 30 seconds to import, so give all clips in one call. What it changes in passing (logging, random
    states, torch's thread count) is put back.

    Args:
        model: a funasr directory (config.yaml, model.pt, tokens.txt), published or made by the sample profile, from
            which nothing is ever downloaded; or one of `PUBLISHED`, which funasr looks up in its cache and may
            download. A class that the model lacks of `other` and `<unk>` scores 0.
        clips: (samples, rate) of each clip, mono, at least 0.2 s.
        device: where the network runs.

    Raises:
        AssetMissingError: the directory or one of its files is missing.
        MissingDependencyError: funasr is not installed.
        DataError: the model lacks one of the seven emotions, or a clip is too short.
    """
    check_emotion_model(model)
    sounds = [resample(samples, rate, SPEECH_RATE) for samples, rate in clips]
    for index, sound in enumerate(sounds):
        if sound.ndim != 1 or len(sound) < _SHORTEST:
            raise DataError(
                f"clip {index} has shape {sound.shape} at 16 kHz; expected mono, at least {_SHORTEST} samples (0.2 s). "
                "Give longer sound or windows."
            )
    if not sounds:
        return np.zeros((0, len(EMOTION2VEC_LABELS)))
    with contained_funasr():
        network = _open_model(model, device)
        results = [
            network.generate(sound, granularity="utterance", extract_embedding=False, disable_pbar=True)[0]
            for sound in sounds
        ]
    return np.stack([_row(result, model) for result in results])


def check_emotion_model(model: str | Path) -> None:
    """Do nothing where `model` is one of `PUBLISHED` or a complete funasr directory.

    Raises:
        AssetMissingError: the directory or one of its files is missing, or the id is not a known one.
        DataError: its config holds Python where numbers belong.
    """
    if str(model) in PUBLISHED and not Path(model).exists():
        return
    missing = [name for name in MODEL_FILES if not (Path(model) / name).is_file()]
    if missing:
        raise AssetMissingError(
            f"emotion2vec: {', '.join(missing)} not found in {model}. Expected a funasr directory with "
            f"{', '.join(MODEL_FILES)}, or one of the ids {', '.join(PUBLISHED)}. Download one, then run "
            "`ecavatar assets add emotion2vec DIR`. The sample profile makes its own: `dvc repro`."
        )
    spec = _front_end_spec(Path(model) / "config.yaml")
    if not isinstance(spec, str) or not _SPEC.fullmatch(spec):
        raise DataError(
            f"emotion2vec: {model}/config.yaml gives the convolutions as {spec!r}; expected numbers, brackets, `+` and "
            "`*` only, since funasr evaluates this line as Python. Download the model again from where it is published."
        )


def _front_end_spec(config: Path) -> object:  # whatever the yaml file holds
    try:
        value: object = yaml.load(config.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(
            f"emotion2vec: {config} is not yaml ({_first_line(error)}). Download the model again from where it is "
            "published."
        ) from None
    for key in ("model_conf", "modalities", "audio", "feature_encoder_spec"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _open_model(model: str | Path, device: str) -> Any:  # funasr is untyped
    try:
        from funasr import AutoModel
    except ImportError as error:
        raise MissingDependencyError(f"emotion recognition needs funasr ({error}). Run `make setup`.") from None
    is_directory = Path(model).is_dir()
    try:
        return AutoModel(
            # An absolute path: funasr takes a relative one that looks like an id for one.
            model=str(Path(model).resolve()) if is_directory else str(model),
            hub="ms",
            disable_update=True,
            disable_pbar=True,
            log_level="ERROR",
            device=device,
            ncpu=torch.get_num_threads(),
        )
    except (AssertionError, OSError, RuntimeError, KeyError) as error:
        what = "open the files in" if is_directory else "find or download"
        raise AssetMissingError(
            f"emotion2vec: funasr could not {what} {model} ({_first_line(error)}). Expected an emotion2vec "
            "with config.yaml, model.pt and tokens.txt. Download it once where there is a network, and give its folder."
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def contained_funasr() -> Iterator[None]:
    """Keeps funasr's notices to itself and puts back what it changes: root logging, random states, torch's threads."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    threads = torch.get_num_threads()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # funasr gives its own loggers handlers and levels
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 (not drawn from, only put back)
        torch.set_rng_state(torch_state)
        torch.set_num_threads(threads)


def _row(result: Mapping[str, Any], model: str | Path) -> NDArray[np.float64]:
    """Scores of one funasr answer in our order; its labels may be bilingual, such as `生气/angry`."""
    scores = {
        str(label).rsplit("/", 1)[-1]: float(score)
        for label, score in zip(result["labels"], result["scores"], strict=True)
    }
    absent = [label for label in EMOTION2VEC_EMOTIONS if label not in scores]
    if absent:
        raise DataError(
            f"the model {model} has the classes {', '.join(scores)} and lacks {', '.join(absent)}. "
            "Use an emotion2vec with nine classes, for instance iic/emotion2vec_plus_large."
        )
    row = np.array([scores.get(label, 0.0) for label in EMOTION2VEC_LABELS])
    return row / row.sum()
