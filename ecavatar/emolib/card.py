"""The card of an Emolib release: how it loads, and a datasheet of what it is and must not be used for.

Source:
    Gebru et al., Datasheets for Datasets, Communications of the ACM, 2021 (the sections and their questions).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ecavatar.emolib.schema import COORDINATES, IMPORTED, SCHEMA_VERSION, EmolibInfo, Source
from ecavatar.emotion import LEVELS
from ecavatar.storage.card import CITATION, column_row, features_yaml, size_category

_TEXT = """---
pretty_name: {title}
license: {licence}
language: []
size_categories: [{size}]
tags: [face, emotion, 3d, mesh, talking-head, {source}]
configs:
{configs}
dataset_info:
{features}
---
# {title}

{total} faces in eight emotion categories and three intensity levels. Each row is one photograph's face: shape,
expression and jaw of the face model `{basis}` (vertex order `{topology}`), at head pose zero.
{whose}

| emotion | level 1 | level 2 | level 3 |
|---|--:|--:|--:|
{counts}

Splits: {splits}. Configs: {config_list}.

## Load it
With Hugging Face `datasets`:
```python
from datasets import load_dataset

faces = load_dataset("PATH", "coefficients", split="{first_split}")
face = faces.with_format("numpy")[0]
print(face["emotion"], face["level"], face["expression"].shape)
```
With pandas:
```python
import pandas as pd

frame = pd.read_parquet("PATH/data/coefficients")
print(frame.groupby(["emotion", "level"]).size())
```
With Polars, reading only what is asked for:
```python
import polars as pl

faces = pl.scan_parquet("PATH/data/coefficients/{first_split}-*.parquet")
print(faces.filter(pl.col("level") == 3).select("item_id", "expression").collect())
```
With DuckDB:
```python
import duckdb

print(duckdb.sql("select emotion, level, count(*) from 'PATH/data/coefficients/*.parquet' group by all order by all"))
```
As a PyTorch data set, which opens its files anew in every worker:
```python
from torch.utils.data import DataLoader

from ecavatar.emolib.loader import EmolibItems

items = EmolibItems("PATH", split="{first_split}")
for batch in DataLoader(items, batch_size=16, num_workers=2):
    print(batch["shape"].shape, batch["emotion_code"].shape)
```
{mesh_block}
## Columns of `coefficients`
| column | kind | unit | what |
|---|---|---|---|
{columns}

Coordinates: {coordinates}.
`meta/stats.json` has mean, spread and range of the numbers over `train` only; `meta/topology.npz` has triangles and
regions. Template, bases and skinning are not included: they belong to the face
model.

# Datasheet

## Motivation
Speech-driven face animation lacks 3D faces that show an emotion at a known intensity. The paper that introduced Emolib
({citation}) drew such faces from AffectNet.
{origin}

## Composition
{composition}
No two items of different splits have the same `source_id`{near}.
Some categories and levels have fewer items than asked for, because the corpus has no more.
Rows are independent; nothing says which items show the same person, so people may be in both splits.

## Collection
{collection}

## Preprocessing
{preprocessing} Settings:
{settings}

## Uses
Made for animating faces with a chosen emotion and intensity, and for studying how expression depends on both.

**Misuse.** Labels say how pictures look to annotators. They do not tell what a person feels, and models trained on them
must not be used to infer emotions of real people, least of all at work, in education, in court or at borders. Shape
coefficients are biometric: use them to animate, never to identify, track or profile anyone. Do not put words into the
mouth of a real person without their consent, and mark what is synthetic.

## Distribution and licence
{distribution}

## Maintenance
Schema {version}, versioned semantically; a tagged release never changes. `ecavatar verify DIRECTORY` recomputes every
checksum, statistic and promise of this card. Errors are mended in the next release, whose notes say which rows changed.

## Known failures
{failures}
"""

_MESH_BLOCK = """As meshes, which are read only when asked for:
```python
from datasets import load_dataset

meshes = load_dataset("PATH", "{config}", split="{split}").with_format("numpy")
print(meshes[0]["{column}"].shape)  # vertices x 3, {unit}
```
"""

_ABOUT = {
    "coefficients": "labels, coefficients, camera (default)",
    "vertices": "the mesh of every face, float32, lossless",
    "vertices_int16": "the mesh of every face in steps of 10 micrometres, at most 5 micrometres off",
    "images": "the photographs' original bytes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTexts:
    """What depends on whose photographs the faces come from."""

    title: str
    licence: str
    """Value of the card's and croissant's licence."""
    whose: str
    origin: str
    """Who made this, the last of its motivation."""
    composition: str
    collection: str
    preprocessing: str
    distribution: str
    failures: str


_SHARED_FAILURES = """- Levels cut the annotated arousal of one category: they do not measure strength, and levels of
  two categories do not compare.
- Strong expressions, closed eyes, tongues, glasses, beards and hands before the face are outside what a linear face
  model shows; profile views lose the far half.
- One photograph hardly tells a large face from a near one: the scale of shape, and of every metre, is uncertain."""

_INDEPENDENT = """This is an independent build of the same kind that can be checked and rebuilt, made by
`ecavatar`; it is not the authors' own release."""
_ITEMS = """\
One item is one photograph: its labels, its coefficients, the camera that puts the face back onto the photograph, and
the rigid motion that was taken out. Splits are the corpus's own."""
_STEPS = """\
Within a category, arousal is cut into three levels; up to one number of images per category and level is drawn at
random with a fixed seed. Images that cannot be read, duplicates and faces that cannot be fitted are left out and
counted. Faces were reconstructed by the backend `{backend}`; the head's pose was then removed by rigid registration.
`removed_transform` is that motion and `alignment_residual_m` what it left."""

_SOURCES: dict[Source, SourceTexts] = {
    "affectnet": SourceTexts(
        title="Emolib",
        licence="other\nlicense_name: affectnet-derived-research-only",
        whose="The photographs are AffectNet's: for research only.",
        origin=_INDEPENDENT,
        composition=_ITEMS,
        preprocessing=_STEPS,
        collection="""\
The photographs are from AffectNet (Mollahosseini, Hasani and Mahoor, 2017), which was gathered from web searches with
emotion words in six languages and annotated by hired annotators, most images by one, with a category, valence and
arousal. The people shown were not asked. `source_id` names a photograph for those who hold AffectNet's licence. Nothing
was added but what software computed from the photographs.""",
        distribution="""\
Licence chain: AffectNet may be used for research only and may not be passed on, so this release holds neither its
photographs nor its lists, only what was computed from them, and is for research only, too. The face model has a licence
of its own, which anyone who turns coefficients into meshes needs. The code is Apache-2.0.""",
        failures="""\
- Two annotators agreed on the category of only 60.7 % of the AffectNet images that both saw: expect wrong labels.
- AffectNet is what search engines returned for emotion words: many expressions are posed, and ages, skin colours and
  cultures are unevenly represented.
"""
        + _SHARED_FAILURES,
    ),
    "sample": SourceTexts(
        title="Emolib sample",
        licence="cc0-1.0",
        whose="The photographs are renders of synthetic heads: no person is shown, and nothing here is AffectNet's.",
        origin=_INDEPENDENT,
        composition=_ITEMS,
        preprocessing=_STEPS,
        collection="""\
The pictures were rendered from the open head, a CC0 head model, with random identities, expressions, poses, light and
colours, and written in AffectNet's format, so that the pipeline can be run without a licence. Labels, valence and
arousal were drawn by the program. No person was photographed or asked.""",
        distribution="""\
CC0-1.0: a program made everything from CC0 parts (MakeHuman's base mesh and targets, Face Units). The code is
Apache-2.0.""",
        failures="""\
- Synthetic: use it to try things out, never to claim how well something works on people.
- Its expressions are mixtures written by hand for each category, not copies of what people do.
"""
        + _SHARED_FAILURES,
    ),
}
_PHOTOGRAPHS = """\
**This copy holds AffectNet's photographs (config `images`). It must stay with the holder of AffectNet's licence and
must not be passed on or uploaded.**"""
_MESHES = """\
**This copy holds meshes of the face model `{basis}`, whose licence forbids passing them on: export with
`vertices: none` for a release.**"""
_AUTHORS = dataclasses.replace(
    _SOURCES["affectnet"],
    title="Emolib (imported)",
    origin="These faces were read from files such as its authors published, by `ecavatar`, which did not make them.",
    composition="""\
One item is one face: its labels and its coefficients. Cameras, the rigid motion that was taken out, and whatever else
the files do not say are null or NaN, or not a column. `split` is `train`
where an item's label file names none, and then divides nothing.""",
    collection="""\
The photographs are from AffectNet (Mollahosseini, Hasani and Mahoor, 2017), which was gathered from web searches with
emotion words in six languages and annotated by hired annotators. The people shown were not asked. `source_id` names a
file among them and no photograph: which photographs they are is not known.""",
    preprocessing="""\
Category and level are those of the authors' folder names or label files; the paper describes how they were drawn and
reconstructed. The authors' files do not name the face model: `basis` is what the importer was given, and if it is not
theirs the coefficients mean something else.""",
    distribution="""\
The authors' files come without a licence, and AffectNet, from which they were made, may be used for research only: this
copy is for research only, and who passes it on needs the authors' permission. The face model has a licence of its own,
which anyone who turns coefficients into meshes needs. The code is Apache-2.0.""",
)


def texts_of(info: EmolibInfo) -> SourceTexts:
    """Whose photographs, and what was done with them, for the card and croissant.json."""
    return _AUTHORS if info.backend == IMPORTED else _SOURCES[info.source]


def card_text(info: EmolibInfo) -> str:
    """README.md of a release; a function of `info` alone.

    Args:
        info: what the release holds.
    """
    texts, first_split = texts_of(info), next(iter(info.rows))
    near = f", nor have they perceptual hashes that differ in {info.near_duplicate_bits} bits of 256 or fewer"
    has_hash = any(column.name == "perceptual_hash" for column in info.columns["coefficients"])
    return _TEXT.format(
        title=texts.title,
        licence=texts.licence,
        source=info.source,
        size=size_category(info.total),
        configs="\n".join(_config_yaml(info, config) for config in info.columns),
        features="\n".join(features_yaml(config, columns) for config, columns in info.columns.items()),
        total=info.total,
        basis=info.basis,
        topology=info.topology,
        whose=texts.whose,
        counts=_counts(info),
        splits=", ".join(f"{rows} items in `{split}`" for split, rows in info.rows.items()),
        config_list="; ".join(f"`{config}`: {_ABOUT[config]}" for config in info.columns),
        first_split=first_split,
        mesh_block=_mesh_block(info, first_split),
        columns="\n".join(column_row(column) for column in info.columns["coefficients"]),
        coordinates=COORDINATES,
        citation=CITATION,
        origin=texts.origin,
        composition=texts.composition,
        near=near if has_hash else "",
        collection=texts.collection,
        preprocessing=texts.preprocessing.format(backend=info.backend),
        settings=_settings(info.made_with),
        distribution=_distribution(info, texts.distribution),
        version=SCHEMA_VERSION,
        failures=texts.failures,
    )


def _distribution(info: EmolibInfo, usual: str) -> str:
    """`usual`, or what stands against passing this copy on."""
    reasons = [_PHOTOGRAPHS] if info.holds_photographs else []
    reasons += [_MESHES.format(basis=info.basis)] if info.holds_licensed_meshes else []
    return "\n\n".join([*reasons, usual if not info.holds_photographs else "The code is Apache-2.0."])


def _config_yaml(info: EmolibInfo, config: str) -> str:
    lines = [f"- config_name: {config}"]
    lines += ["  default: true"] if config == "coefficients" else []
    lines += ["  data_files:"]
    lines += [f"  - {{split: {split}, path: data/{config}/{split}-*.parquet}}" for split in info.rows]
    return "\n".join(lines)


def _counts(info: EmolibInfo) -> str:
    return "\n".join(
        f"| {emotion} | " + " | ".join(str(levels.get(str(level), 0)) for level in LEVELS) + " |"
        for emotion, levels in info.counts.items()
    )


def _mesh_block(info: EmolibInfo, split: str) -> str:
    for config, columns in info.columns.items():
        if config.startswith("vertices"):
            mesh = columns[-1]
            return _MESH_BLOCK.format(config=config, split=split, column=mesh.name, unit=mesh.unit)
    return ""


def _settings(made_with: Mapping[str, Mapping[str, object]]) -> str:
    if not made_with:
        return "not recorded."
    return "\n".join(
        f"- `{stage}`: " + ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))
        for stage, settings in sorted(made_with.items())
    )
