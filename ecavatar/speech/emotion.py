"""How strongly each emotion sounds in a clip, by emotion2vec run through funasr."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def recognise_emotions(
    model_dir: Path, clips: Sequence[tuple[NDArray[np.floating], int]], *, device: str = "cpu"
) -> NDArray[np.float64]:
    """Scores of the nine emotion2vec classes for each clip, (N, 9), rows sum to 1, columns in `EMOTION2VEC_LABELS` order.

    Args:
        model_dir: a funasr directory (config.yaml, model.pt, tokens.txt), published or made by the sample profile.
        clips: (samples, rate) of each clip, mono.

    Raises:
        AssetMissingError: the directory or one of its files is missing.
        MissingDependencyError: funasr is not installed.
        DataError: the model knows other classes, or a clip is empty.
    """
    raise NotImplementedError
