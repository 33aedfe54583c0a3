"""Opens published HuBERT, wav2vec2 and WavLM models from a local directory or by hub id, whole or with one clear error.

Weights are read as safetensors, or from `pytorch_model.bin` without unpickling it. transformers would fill weights that
a checkpoint lacks with random numbers and carry on; here that is an error.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.storage.torch_file import StoredTensor, open_torch_file

FAMILIES: Final = ("hubert", "wav2vec2", "wavlm")
"""`model_type` of the models that can be opened."""
SAMPLE_RATE: Final = 16000
_SAFETENSORS: Final = ("model.safetensors", "model.safetensors.index.json")
_TORCH_FILE: Final = "pytorch_model.bin"
_SMALL_FILES: Final = (
    "preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json",
)  # fmt: skip
_DIRECTORY: Final = "Give a transformers directory (config.json, model.safetensors or pytorch_model.bin) or a hub id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """An opened model."""

    model: Any
    """transformers model in float32, evaluation mode."""
    directory: Path
    """Where its files lie; for a hub id, in the hub's cache."""
    normalises: bool
    """True if its processor brings every clip to mean 0 and variance 1 (`do_normalize`)."""


def open_pretrained(source: str | Path, purpose: str, *, with_letters: bool = False) -> Pretrained:
    """A speech model, without network access when `source` is a path.

    Args:
        source: directory with config.json and weights, or a hub id such as `facebook/hubert-large-ls960-ft`. A text
            counts as hub id only if it has the form `owner/name` and no directory `owner` exists.
        purpose: what the model is for, named in errors.
        with_letters: open the CTC head, too; else a head in the file is left out.

    Raises:
        AssetMissingError: the directory does not exist or lacks a file, or the hub id cannot be fetched.
        DataError: another kind of model, weights that are damaged, lack something or do not fit its config.json, or a
            processor for another sampling rate.
    """
    directory = find_pretrained(source, purpose)
    config = _read_json(directory / "config.json", purpose)
    if config.get("model_type") not in FAMILIES:
        raise DataError(
            f"{purpose}: {directory / 'config.json'} describes model_type {config.get('model_type')!r}; expected "
            f"{', '.join(FAMILIES)}. Give another directory or hub id."
        )
    model = _load(directory, config["model_type"], purpose, with_letters=with_letters)
    return Pretrained(model=model.eval(), directory=directory, normalises=expects_normalised(directory))


def find_pretrained(source: str | Path, purpose: str) -> Path:
    """The directory of a model: `source` itself, or where the files of a hub id were downloaded to.

    Raises:
        AssetMissingError: see `open_pretrained`.
    """
    if Path(source).is_dir():
        return Path(source)
    if _is_path(source):
        raise AssetMissingError(f"{purpose}: no directory {source}. {_DIRECTORY}; `dvc repro` makes the sample's own.")
    return _download(str(source), purpose)


def expects_normalised(directory: Path) -> bool:
    """Whether the model's processor brings clips to mean 0 and variance 1; true, as transformers has it, if unsaid.

    HuBERT's and wav2vec2's published processors do, base and large alike; WavLM base does not.

    Raises:
        DataError: the processor expects another sampling rate than 16 kHz.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (directory / name).is_file():
            said = _read_json(directory / name, "speech processor")
            said = said.get("feature_extractor", said)  # newer versions nest it
            if said.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
                raise DataError(
                    f"{directory / name} expects {said['sampling_rate']} Hz; only {SAMPLE_RATE} Hz models are used "
                    "here. Give another model."
                )
            return bool(said.get("do_normalize", True))
    return True


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


# --- where it is ------------------------------------------------------------------------------------------------------


def _is_path(source: str | Path) -> bool:
    if isinstance(source, Path) or Path(source).is_absolute() or source.startswith((".", "~")):
        return True
    return source.count("/") != 1 or "\\" in source or Path(source).parent.is_dir()


def _download(repository: str, purpose: str) -> Path:
    """Fetches what is needed of a hub repository, or finds it in the hub's cache."""
    try:
        config = _fetch(repository, "config.json")
        for name in _SMALL_FILES:
            _fetch(repository, name)
        weights = next((path for name in (*_SAFETENSORS, _TORCH_FILE) if (path := _fetch(repository, name))), None)
        if weights is not None and weights.suffix == ".json":
            for shard in sorted(set(json.loads(weights.read_text())["weight_map"].values())):
                _fetch(repository, shard)
    except (OSError, ValueError, KeyError) as error:
        raise AssetMissingError(
            f"{purpose}: {repository} cannot be fetched from the hub ({_first_line(error)}). Check the id and the "
            f"network, or download it elsewhere. {_DIRECTORY}."
        ) from error
    if config is None or weights is None:
        lacking = "config.json" if config is None else "weights"
        raise AssetMissingError(
            f"{purpose}: hub repository {repository} has no {lacking}, or it is neither in the local cache nor "
            f"reachable. {_DIRECTORY}."
        )
    return config.parent


def _fetch(repository: str, name: str) -> Path | None:
    """The local copy of one file; None if the repository has no such file."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repository, name))
    except EntryNotFoundError:
        return None


def _read_json(path: Path, purpose: str) -> dict[str, Any]:
    if not path.is_file():
        raise AssetMissingError(f"{purpose}: {path.parent} has no {path.name}. {_DIRECTORY}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{purpose}: {path} is not json ({error}). Copy or download it again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{purpose}: {path} holds a {type(content).__name__}; expected an object. Download it again.")
    return content


# --- what is in it ----------------------------------------------------------------------------------------------------


def _load(directory: Path, family: str, purpose: str, *, with_letters: bool) -> Any:
    from huggingface_hub.errors import StrictDataclassError  # what a config with wrong values raises
    from safetensors import SafetensorError

    try:
        with quiet_transformers():
            model, found = _opened(_network(family, with_letters=with_letters), directory, purpose)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        if isinstance(error, AssetMissingError | DataError):
            raise
        raise DataError(
            f"{purpose}: {directory} cannot be opened as a transformers model ({_first_line(error)}). Its config.json "
            "or weights are damaged; download it again."
        ) from error
    _refuse_gaps(found, directory, purpose)
    if any(name.endswith("masked_spec_embed") for name in found["missing_keys"]):
        model.base_model.masked_spec_embed.data.zero_()  # fine-tuned models leave it out; only masking reads it
    return model


def _network(family: str, *, with_letters: bool) -> Any:
    import transformers  # seconds to import

    return {
        ("hubert", False): transformers.HubertModel, ("hubert", True): transformers.HubertForCTC,
        ("wav2vec2", False): transformers.Wav2Vec2Model, ("wav2vec2", True): transformers.Wav2Vec2ForCTC,
        ("wavlm", False): transformers.WavLMModel, ("wavlm", True): transformers.WavLMForCTC,
    }[family, with_letters]  # fmt: skip


def _opened(network: Any, directory: Path, purpose: str) -> tuple[Any, Mapping[str, Any]]:
    """The model in float32 whatever its file holds, and transformers' account of what was in the file."""
    options = {"output_loading_info": True, "dtype": torch.float32, "ignore_mismatched_sizes": True}
    if any((directory / name).is_file() for name in _SAFETENSORS):
        return network.from_pretrained(directory, local_files_only=True, use_safetensors=True, **options)
    if not (directory / _TORCH_FILE).is_file():
        raise AssetMissingError(f"{purpose}: {directory} has no weights. {_DIRECTORY}.")
    config = network.config_class.from_pretrained(directory, local_files_only=True)
    return network.from_pretrained(None, config=config, state_dict=_torch_weights(directory / _TORCH_FILE), **options)


def _torch_weights(path: Path) -> dict[str, Tensor]:
    """A `torch.save` file of tensors by name, read without unpickling."""
    file = open_torch_file(path)
    content = file.content
    if not isinstance(content, dict) or not all(isinstance(value, StoredTensor) for value in content.values()):
        raise DataError(f"{path} is no dict of tensors by name; expected transformers' pytorch_model.bin.")
    return {str(name): file.read(tensor) for name, tensor in content.items()}


def _refuse_gaps(found: Mapping[str, Any], directory: Path, purpose: str) -> None:
    sizes = sorted(str(name[0] if isinstance(name, tuple) else name) for name in found["mismatched_keys"])
    missing = sorted(name for name in found["missing_keys"] if not name.endswith("masked_spec_embed"))
    if missing and all(name.startswith("lm_head.") for name in missing):
        raise DataError(
            f"{purpose}: {directory} is a model without letter scores (no lm_head). Expected one fine-tuned with CTC, "
            "such as facebook/hubert-large-ls960-ft or facebook/wav2vec2-base-960h."
        )
    if missing or sizes:
        what = f"{len(missing)} weights are missing" if missing else f"{len(sizes)} weights have another size"
        raise DataError(
            f"{purpose}: {directory}: {what} (first: {(missing or sizes)[0]}); config.json and weights belong to "
            "different models, or the file is incomplete. Download both again."
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
