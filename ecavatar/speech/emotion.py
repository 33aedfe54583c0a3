"""How strongly each emotion sounds in a clip, by emotion2vec run through funasr."""

import contextlib
import io
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ecavatar.emotion import EMOTION2VEC_EMOTIONS, EMOTION2VEC_LABELS
from ecavatar.errors import AssetMissingError, DataError, MissingDependencyError
from ecavatar.speech.audio import SPEECH_RATE, resample

MODEL_FILES: Final = ("config.yaml", "model.pt", "tokens.txt")
"""What a funasr directory of emotion2vec holds."""

_SHORTEST: Final = 400  # samples that the network's front end needs for one step


def recognise_emotions(
    model_dir: Path, clips: Sequence[tuple[NDArray[np.floating], int]], *, device: str = "cpu"
) -> NDArray[np.float64]:
    """Scores of the nine emotion2vec classes for each clip, (N, 9) in `EMOTION2VEC_LABELS` order; rows sum to 1.

    funasr takes 15 to 30 seconds to import, so give all clips in one call. What it changes in passing (logging, random
    states, torch's thread count) is put back.

    Args:
        model_dir: a funasr directory (config.yaml, model.pt, tokens.txt), published or made by the sample profile. A
            class it lacks of `other` and `<unk>` scores 0.
        clips: (samples, rate) of each clip, mono, at least 25 ms.
        device: where the network runs.

    Raises:
        AssetMissingError: the directory or one of its files is missing.
        MissingDependencyError: funasr is not installed.
        DataError: the model lacks one of the seven emotions, or a clip is too short.
    """
    _check_directory(model_dir)
    sounds = [resample(samples, rate, SPEECH_RATE) for samples, rate in clips]
    for index, sound in enumerate(sounds):
        if sound.ndim != 1 or len(sound) < _SHORTEST:
            raise DataError(
                f"clip {index} has shape {sound.shape} at 16 kHz; expected mono, at least {_SHORTEST} samples (25 ms)."
            )
    if not sounds:
        return np.zeros((0, len(EMOTION2VEC_LABELS)))
    with contained_funasr():
        model = _open_model(model_dir, device)
        results = [
            model.generate(sound, granularity="utterance", extract_embedding=False, disable_pbar=True)[0]
            for sound in sounds
        ]
    return np.stack([_row(result, model_dir) for result in results])


def _check_directory(model_dir: Path) -> None:
    missing = [name for name in MODEL_FILES if not (Path(model_dir) / name).is_file()]
    if missing:
        raise AssetMissingError(
            f"emotion2vec: {', '.join(missing)} not found in {model_dir}. Expected a funasr directory with "
            f"{', '.join(MODEL_FILES)} (the published one is iic/emotion2vec_plus_large); then run "
            "`ecavatar assets add emotion2vec DIR`. The sample profile makes its own: `dvc repro`."
        )


def _open_model(model_dir: Path, device: str) -> Any:  # funasr is untyped
    try:
        from funasr import AutoModel
    except ImportError as error:
        raise MissingDependencyError(f"emotion recognition needs funasr ({error}). Run `make setup`.") from None
    return AutoModel(
        model=str(model_dir),
        disable_update=True,
        disable_pbar=True,
        log_level="ERROR",
        device=device,
        ncpu=torch.get_num_threads(),
    )


@contextlib.contextmanager
def contained_funasr() -> Iterator[None]:
    """Keeps funasr's notices to itself and puts back what it changes: root logging, random states, torch's threads."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    threads = torch.get_num_threads()
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002 (not drawn from, only put back)
        torch.set_rng_state(torch_state)
        torch.set_num_threads(threads)


def _row(result: Mapping[str, Any], model_dir: Path) -> NDArray[np.float64]:
    """Scores of one funasr answer in our order; its labels may be bilingual, such as `生气/angry`."""
    scores = {
        str(label).rsplit("/", 1)[-1]: float(score)
        for label, score in zip(result["labels"], result["scores"], strict=True)
    }
    absent = [label for label in EMOTION2VEC_EMOTIONS if label not in scores]
    if absent:
        raise DataError(
            f"the model in {model_dir} has the classes {', '.join(scores)} and lacks {', '.join(absent)}. "
            "Use an emotion2vec with nine classes, for instance iic/emotion2vec_plus_large."
        )
    row = np.array([scores.get(label, 0.0) for label in EMOTION2VEC_LABELS])
    return row / row.sum()
