"""The card of an Emolib release: what it is, how it loads, what it must not be used for."""

from collections.abc import Mapping

from ecavatar.emolib.schema import EmolibInfo, schema
from ecavatar.emotion import LEVELS

_TEXT = """---
pretty_name: Emolib
license: other
license_name: affectnet-derived-research-only
tags: [face, emotion, 3d, talking-head]
configs:
- config_name: coefficients
  default: true
  data_files:
{data_files}
dataset_info:
  config_name: coefficients
  features:
{features}
---
# Emolib: emotional faces as coefficients

{total} faces in eight emotion categories and three intensity levels. Each row is one photograph's face: shape,
expression and jaw of the face model `{basis}` (vertex order `{topology}`), at head pose zero.

| emotion | level 1 | level 2 | level 3 |
|---|--:|--:|--:|
{counts}

## Load
```python
from datasets import load_dataset           # rows with labels and coefficients
faces = load_dataset("PATH", split="{first_split}")

import pandas as pd
frame = pd.read_parquet("PATH/{first_file}")
```

## How it was made
Images were drawn at random from AffectNet, up to one number per category and level; a category's levels are thirds of
equal width between its lowest and highest annotated arousal. Faces were reconstructed by the backend `{backend}`; the
head's pose was removed by rigid registration: `removed_transform` is the motion (row-major 4 x 4, metres) from pose in
the image to pose zero, `alignment_residual_m` what it left. `residual_mm` says how well a face explains its landmarks.

## Limits and misuse
Labels are opinions about pictures, noisy and culture-bound; they do not tell what a person feels. Shape coefficients
are biometric: use them to animate, not to identify. Neither images nor AffectNet's lists are included; `source_id`
names the image for those who hold AffectNet's licence, which covers research only.
"""

_TYPES = {
    "int8": ("emotion_code", "level"),
    "float32": ("valence", "arousal", "alignment_residual_m", "residual_mm"),
}


def card_text(info: EmolibInfo, splits: Mapping[str, str]) -> str:
    """README.md of a release.

    Args:
        info: what the release holds.
        splits: path of the data file by split, relative to the release.
    """
    first_split, first_file = next(iter(splits.items()))
    return _TEXT.format(
        data_files="\n".join(f"  - {{split: {split}, path: {path}}}" for split, path in splits.items()),
        features=_features(info),
        total=sum(sum(levels.values()) for levels in info.counts.values()),
        basis=info.basis,
        topology=info.topology,
        backend=info.backend,
        counts="\n".join(
            f"| {emotion} | " + " | ".join(str(levels.get(str(level), 0)) for level in LEVELS) + " |"
            for emotion, levels in info.counts.items()
        ),
        first_split=first_split,
        first_file=first_file,
    )


def _features(info: EmolibInfo) -> str:
    """The YAML list of columns; fixed lists carry their length."""
    scalar = {name: kind for kind, names in _TYPES.items() for name in names}
    lines = []
    for field in schema(info.n_shape, info.n_expression):
        size = getattr(field.type, "list_size", None)
        if size is None:
            lines.append(f"  - {{name: {field.name}, dtype: {scalar.get(field.name, 'string')}}}")
        else:
            lines.append(f"  - {{name: {field.name}, list: float32, length: {size}}}")
    return "\n".join(lines)
