"""Opens transformers checkpoints, local directories and hub ids alike, with one clear error when they are not there."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ecavatar.errors import AssetMissingError


def from_pretrained(loader: Callable[..., Any], source: str | Path, purpose: str) -> Any:
    """`loader(source)`, without network access when `source` is a directory.

    Args:
        loader: a transformers `from_pretrained`.
        source: directory with config.json and weights, or a hub id such as `facebook/hubert-large-ls960-ft`.
        purpose: what the model is for, named in errors.

    Raises:
        AssetMissingError: the directory does not exist, holds no usable model, or the hub id cannot be fetched.
    """
    is_directory = Path(source).is_dir()
    if not is_directory and _looks_like_a_path(source):
        raise AssetMissingError(
            f"{purpose}: no directory {source}. Give a transformers directory (config.json, model.safetensors) "
            "or a hub id; the sample profile makes its own: `dvc repro`."
        )
    with quiet_transformers():
        try:
            return loader(str(source), local_files_only=is_directory)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise AssetMissingError(
                f"{purpose}: {source} cannot be opened as a transformers model ({reason}). "
                "Expected config.json with model_type hubert or wav2vec2, weights and a recogniser's tokenizer files."
            ) from error


def _looks_like_a_path(source: str | Path) -> bool:
    if isinstance(source, Path):
        return True
    return Path(source).is_absolute() or source.startswith((".", "~")) or source.count("/") != 1


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides the progress bar and the report on unused weights; a CTC checkpoint opened as encoder always has some."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
