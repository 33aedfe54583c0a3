"""The card that lies beside a network's weights: what it is, what made it, how well it does, and whose data is in it.

Everything in it comes from the weights' own json files and the settings, so equal training gives equal bytes.

Source:
    Mitchell et al., Model Cards for Model Reporting, FAT* 2019 (the sections and their questions).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecavatar.config import Section
from ecavatar.emolib.topology import FREE_TOPOLOGIES
from ecavatar.errors import DataError
from ecavatar.storage.card import CITATION
from ecavatar.storage.files import atomic_path, read_json

CARD = "README.md"
_TEXT = """---
license: {licence}
library_name: ecavatar
tags: [{tags}]
---
# {name}

{summary} It was made by `ecavatar`,
an independent implementation of {citation}; these are not the authors' weights.

## Files
| file | network | parameters | epoch |
|---|---|--:|--:|
{files}

`ecavatar.training.weights.load_weights` reads them; the json beside each file says how the network is built. Nothing in
them can run code.

## Intended use
{use}

## Limits
{limits}
These weights know the vertex order `{topology}` and no other. A talking head of a real person can deceive: say that
it is made, and make none of a person who has not agreed.

## Training data
{data}

Hash of data and settings: `{data_hash}`.

## Licence
{licence_note}

## How it was trained
Seed {seed}. `model` is of the epoch that validated best, epoch 0 being the network before training.

| setting | value |
|---|---|
{settings}

## Figures
On the validation subjects, which the training has not seen, at the chosen epoch. The json has all digits.

| figure | value |
|---|--:|
{figures}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What is said of a network, whatever it was trained on."""

    tags: str
    summary: str
    use: str
    limits: str
    data: str


_ABOUT = {
    "SelfTalk": _About(
        tags="speech, talking-head, face, 3d",
        summary="Moves the lips of a 3D face to speech: sound in, one mesh a frame out.",
        use="Research on talking heads: `ecavatar lips` and `ecavatar animate` take this folder. Any voice and length.",
        limits="It moves what speech moves: no gaze, no blinking, no head, and no emotion (FuNet adds that).\n"
        "Voices, languages and noise that are not in the training data may give smaller or wrong movements.",
        data="VOCATeeth, split `train`, by subject. The speech encoder came pretrained; its weights are in here, too.",
    ),
    "FuNet": _About(
        tags="emotion, talking-head, face, 3d",
        summary="Joins a speaking face and an emotional face, both 3D meshes, to one that speaks with the emotion.",
        use="Research on talking heads: `ecavatar animate` takes this folder, frame by frame.",
        limits="It learns what its losses reward, a blend by region, and no interplay of emotion and speech.\n"
        "Faces far from the training's, in identity or strength of expression, may come out wrong.",
        data="Pairs of a frame of VOCATeeth (split `train`) and a reconstructed emotional face of Emolib's pool.",
    ),
}
_FREE_NOTE = """\
Trained on the sample's synthetic head, voices and pictures alone: no person is in the data, and the weights may be
passed on under Apache-2.0. They show that the method works, and are not fit for more."""
_LICENSED_NOTE = """\
Trained on licensed data (VOCASET, FLAME and, for emotions, AffectNet: for research only), whose terms bind what is
derived from them. Keep these weights to yourself unless the licensors allow more; the code's Apache-2.0 does not cover
them."""


def write_model_card(directory: Path, settings: Section, seed: int) -> None:
    """Write README.md beside the weights that `save_weights` left in `directory`.

    Args:
        directory: holds model.json, and more pairs of weights if there are any.
        settings: the network's section of params.yaml.
        seed: of params.yaml.

    Raises:
        AssetMissingError: no model.json.
        DataError: its network has no card, or it does not say topology and data.
    """
    directory = Path(directory)
    description = read_json(directory / "model.json")
    name, facts = description["class"], description["facts"]
    missing = [key for key in ("topology", "data_hash", "figures") if key not in facts]
    if name not in _ABOUT or missing:
        raise DataError(
            f"{directory / 'model.json'}: expected {' or '.join(_ABOUT)} with topology, data_hash and figures, found "
            f"{name} without {', '.join(missing) or 'nothing'}. Give these facts to save_weights first."
        )
    about, is_free = _ABOUT[name], facts["topology"] in FREE_TOPOLOGIES
    text = _TEXT.format(
        name=name, tags=about.tags, summary=about.summary, use=about.use, limits=about.limits, data=about.data,
        licence="apache-2.0" if is_free else "other", licence_note=_FREE_NOTE if is_free else _LICENSED_NOTE,
        citation=CITATION, topology=facts["topology"], data_hash=facts["data_hash"], seed=seed,
        files="\n".join(_file_row(path) for path in sorted(directory.glob("*.json"))),
        settings="\n".join(f"| `{key}` | {_said(value)} |" for key, value in _flat(settings.model_dump()).items()),
        figures="\n".join(f"| `{key}` | {value:.4g} |" for key, value in sorted(facts["figures"].items())),
    )  # fmt: skip
    with atomic_path(directory / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _file_row(path: Path) -> str:
    description = read_json(path)
    epoch = description["facts"].get("epoch", "")
    return f"| `{path.stem}.safetensors` | {description['class']} | {description['parameters']:,} | {epoch} |"


def _said(value: Any) -> str:
    """As params.yaml says it."""
    return value if isinstance(value, str) else json.dumps(value)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for key, value in settings.items():
        rows |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return rows
