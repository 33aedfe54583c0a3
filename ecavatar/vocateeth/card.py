"""The card of a VOCATeeth: how it loads, and a datasheet of what it is and must not be used for.

Source:
    Gebru et al., Datasheets for Datasets, Communications of the ACM, 2021 (the sections and their questions).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecavatar.errors import DataError
from ecavatar.storage.card import CITATION, column_row, features_yaml, size_category
from ecavatar.storage.croissant import croissant, one_line
from ecavatar.storage.files import atomic_path, read_json, write_json
from ecavatar.vocateeth.dataset import INFO, MOUTH, REJECTS, TOPOLOGY
from ecavatar.vocateeth.facts import (
    CARD,
    CONTENTS,
    CROISSANT,
    FREE_LICENCES,
    SPLITS,
    STATS,
    UNUSED,
    Facts,
    Table,
    read_facts,
)
from ecavatar.vocateeth.stats import contents_json, read_totals, stats_json

_TEXT = """---
pretty_name: {title}
license: {licence}
language: [en]
size_categories: [{size}]
tags: [face, speech, 3d, mesh, talking-head, teeth]
configs:
{configs}
dataset_info:
{features}
---
# {title}

{summary}
{whose}

| split | subjects | clips | frames | seconds |
|---|--:|--:|--:|--:|
{splits}

Tables:

{tables}

## Load it
{loading}
## Columns
{columns}
`{info}` lists the clips with their places, `{rejects}` what could not be used and why. `{mouth}` holds the
mouth with the part and the tooth of every vertex, `{topology}` the triangles of face and mouth joined and the
regions of the face. `{stats}` has mean, spread and quantiles over `train` only, `{contents}` a hash of every
clip and subject.

Coordinates: x to the subject's left, y up, z forward; metres; head at zero pose. A joined head has the {n_face}
vertices of the face first, then the {n_mouth} of the mouth.

# Datasheet

## Motivation
Talking-head research moves the lips of VOCASET's meshes, which have neither teeth nor tongue. The paper that introduced
VOCATeeth gave them a mouth that follows the chin ({citation}); its own mouth
meshes are commercial. This is an independent build of the same kind that can be checked and rebuilt, made by
`ecavatar`; it is not the authors' own release.

## Composition
{composition}
{counted}
Splits are VOCA's and go by subject: no subject is in two of them. A subject of `val` or `test` may also have clips
that VOCA uses in no split; their `split` is empty, and the lists of files go by subject: filter by the column `split`.

## Collection
{collection}

## Preprocessing
Frames: every {step} of the {native_fps} frames a second, as they are, without smoothing.

The angle: P is a point of the chin, Q one below the left ear, each {patch}. Seen from the side, the angle
between the line QP of the subject's neutral face and that of the frame is the angle of the jaw (the ECAvatar paper,
section 3.4). It is what the chin's skin shows: no jaw was measured.

The mouth: `{mouth_name}` ({mouth_licence}). Upper teeth and upper gum stay; lower teeth, lower gum and tongue
turn by the angle, stiff, about the subject's axis. The tongue does not move otherwise.

The fit: the mouth was moved, turned and scaled into each neutral face behind its closed lips; how far it sticks out of
the face stands beside each fit.

Sound: {sound}

## Uses
Made for talking heads that open their mouths: training, rendering, measuring lips against teeth.

**Misuse.** A face that says what its owner did not say deceives. Do not put words into the mouth of a real person
without their consent, mark what is synthetic, and do not use shapes or voices to identify anyone.

**Not for** phonetics or dentistry: teeth and tongue are a guess from the outside, the same for everybody but for the
fit.

## Distribution and licence
{distribution}

## Maintenance
Format `{format}`; numbered releases are versioned semantically and never change. `ecavatar verify DIRECTORY`
recomputes every checksum, statistic and promise of this card. Errors are mended in the next release, whose notes say
which clips changed.

## Known failures
- The chin's skin also moves without the jaw (pouting, pressing the lips), and the angle then turns the teeth.
- Real jaws slide forward while they open; this one only turns.
- Where the mouth sticks out of a neutral face, it will do so in frames, too.
{failures}"""

_FRAMES = {
    "faces": "every frame's face and jaw angle (default)",
    "angles": "every frame's jaw angle (default)",
    "audio": "every clip's sound",
    "templates": "every subject's neutral face, and how the mouth fits into it",
    "fits": "how the mouth fits into every subject's neutral face",
}
_BLOCKS = {
    "frames": """With Hugging Face `datasets`:
```python
from datasets import load_dataset

frames = load_dataset("PATH", split="{split}").with_format("numpy")
frame = frames[0]
print(frame["clip_id"], frame["frame"], frame["angle"]{shape})
```
""",
    "audio": """Its sound, left as bytes, which needs no decoder of `datasets`:
```python
import io

import soundfile
from datasets import Audio, load_dataset

sounds = load_dataset("PATH", "audio", split="{split}").cast_column("audio", Audio(decode=False))
samples, rate = soundfile.read(io.BytesIO(sounds[0]["audio"]["bytes"]))
print(sounds[0]["clip_id"], samples.shape, rate)
```
""",
    "subjects": """Its subjects (with `with_format("numpy")` the fits would lose half of their digits):
```python
from datasets import load_dataset

subjects = load_dataset("PATH", "{subjects}", split="subjects")
print(subjects[0]["subject"], subjects[0]["mouth_scale"], subjects[0]["jaw_pivot"])
```
""",
    "pandas": """With pandas, without the meshes:
```python
import pandas as pd

frame = pd.read_parquet("PATH/data/{frames}", columns=["clip_id", "split", "angle"])
print(frame[frame["split"] == "{split}"].groupby("clip_id")["angle"].agg(["min", "max"]))
```
""",
    "polars": """With Polars, reading only what is asked for:
```python
import polars as pl

frames = pl.scan_parquet("PATH/data/{frames}/*.parquet")
print(frames.filter(pl.col("angle") > 0.1).group_by("subject").len().collect())
```
""",
    "duckdb": """With DuckDB:
```python
import duckdb

print(duckdb.sql("select clip_id, max(angle) from 'PATH/data/{frames}/*.parquet' group by all order by all"))
```
""",
    "heads": """As heads with teeth, made while they are read:
```python
from pathlib import Path

from ecavatar.vocateeth.dataset import VocaTeeth

teeth = VocaTeeth.open(Path("PATH"))
heads = teeth.heads(teeth.clips[0], 0, 2)
print(heads.shape, teeth.faces().shape)  # frames x vertices x 3, triangles x 3
```
""",
    "torch": """As a PyTorch data set of whole clips or windows:
```python
from pathlib import Path

from torch.utils.data import DataLoader

from ecavatar.vocateeth.windows import TeethClips, pad_clips

clips = TeethClips(Path("PATH"), "{split}")
for batch in DataLoader(clips, batch_size=2, collate_fn=pad_clips):
    print(batch.vertices.shape, batch.audio.shape)
```
""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusTexts:
    """What depends on whose meshes and voices these are."""

    title: str
    licence: str
    """Value of the card's `license`."""
    licence_url: str
    whose: str
    collection: str
    distribution: str
    failures: str
    personal: str
    """croissant.json's word on personal information."""


_VOCA_URL = "https://voca.is.tue.mpg.de/license.html"
_RECORDED = """\
VOCASET (Cudeiro et al., Capture, Learning, and Synthesis of 3D Speaking Styles, CVPR 2019): twelve adults, six female
and six male, spoke English sentences before a multi-camera scanner; a face model was registered to every scan. Nothing
was added but what software computed from the meshes."""
_SAMPLE = CorpusTexts(
    title="VOCATeeth sample",
    licence="cc0-1.0",
    licence_url="https://creativecommons.org/publicdomain/zero/1.0/",
    whose="The faces are a synthetic head's and the voices a program's: no person is shown or heard, and nothing here\n"
    "is VOCASET's but the names of its subjects, sentences and splits.",
    collection="""\
A program spoke the sentences, moved the open head's lips and jaw along, and wrote both in VOCASET's format, so that the
pipeline can be run without a licence. No person was scanned, recorded or asked.""",
    distribution="""\
CC0-1.0: a program made everything from CC0 parts (MakeHuman's base mesh and targets, Face Units). The code is
Apache-2.0.""",
    failures="- Synthetic: use it to try things out, never to claim how well something works on people.\n",
    personal="Synthetic: none.",
)
_VOCASET = CorpusTexts(
    title="VOCATeeth",
    licence="other\nlicense_name: vocaset-no-redistribution",
    licence_url=_VOCA_URL,
    whose="The faces and voices are VOCASET's, of twelve people: for research only, and not to be passed on.",
    collection=_RECORDED,
    distribution="""\
**This copy holds VOCASET's meshes and voices, whose licence forbids passing them on. It must stay with the holder of
that licence and must not be uploaded.** What was computed from them, angles and fits, can be released without them:
`python -m flows.release vocateeth --version X.Y.Z --content free`. The code is Apache-2.0.""",
    failures="- Twelve people who read English sentences without emotion: smiles, other ages and languages lack.\n",
    personal="Faces and voices of twelve people, who are named by codes.",
)
_ANGLES = CorpusTexts(
    title="VOCATeeth angles",
    licence="other\nlicense_name: vocaset-derived-research-only",
    licence_url=_VOCA_URL,
    whose="Meshes and voices are not in here: they are VOCASET's; its holders have them under the same names.",
    collection=_RECORDED,
    distribution="""\
VOCASET may be used for research only and may not be passed on. This copy holds neither its meshes nor its voices, only
numbers that software computed from them, and is for research only, too. The code is Apache-2.0.""",
    failures=_VOCASET.failures,
    personal="Angles and places of a jaw, by code of the person.",
)
_UNFREE_MOUTH = """\
**The mouth `{name}` is under `{licence}`: unless that allows it, {mouth} and {topology} must not be passed on.**

"""


def write_card(directory: Path) -> None:
    """Write README.md, croissant.json, stats.json and contents.json of the VOCATeeth in `directory`.

    Everything but these and the manifest must be there; all data are read once.

    Raises:
        AssetMissingError: a file is missing.
        DataError: a file is damaged.
    """
    facts = read_facts(directory)
    totals = read_totals(directory, facts)
    write_json(directory / STATS, stats_json(facts, totals))
    write_json(directory / CONTENTS, contents_json(directory, facts, totals))
    write_json(directory / CROISSANT, croissant_json(directory, facts))
    with atomic_path(directory / CARD) as temporary:
        temporary.write_text(card_text(facts, read_json(directory / STATS)), encoding="utf-8")


def texts_of(facts: Facts) -> CorpusTexts:
    """Whose meshes and voices, for the card and croissant.json."""
    if facts.is_sample:
        return _SAMPLE
    return _VOCASET if facts.has_meshes else _ANGLES


def card_text(facts: Facts, stats: Mapping[str, Any]) -> str:  # Any: json
    """README.md, a function of info.json and stats.json alone.

    Raises:
        DataError: stats.json lacks a number.
    """
    texts, tables = texts_of(facts), facts.tables()
    try:
        splits = "\n".join(_split_row(name, stats["splits"][name]) for name in (*SPLITS, UNUSED))
    except (KeyError, TypeError) as error:
        raise DataError(f"{STATS} lacks {error}. Run rig_mouths again.") from None
    step = {1: "one", 2: "second", 3: "third"}.get(facts.native_fps // facts.fps, f"{facts.native_fps // facts.fps}th")
    return _TEXT.format(
        title=texts.title,
        licence=texts.licence,
        size=size_category(facts.counts.get("frames", 0)),
        configs="\n".join(_config_yaml(facts, table) for table in tables),
        features="\n".join(features_yaml(table.name, table.columns) for table in tables),
        summary=_summary(facts),
        whose=texts.whose,
        splits=splits,
        tables="\n".join(f"- `{table.name}`: {_FRAMES[table.name]}" for table in tables),
        loading=_loading(facts),
        columns="\n".join(_columns_text(table) for table in tables),
        n_face=facts.n_face,
        n_mouth=facts.n_mouth,
        citation=CITATION,
        composition=_composition(facts),
        counted=_counted(facts),
        collection=texts.collection,
        step=step,
        native_fps=facts.native_fps,
        patch=f"the mean of the vertices within {facts.patch_mm:g} mm" if facts.patch_mm else "a single vertex",
        mouth_name=facts.mouth_name,
        mouth_licence=facts.mouth_licence,
        sound="16 bit as recorded, packed without loss (FLAC)." if facts.has_meshes else "not in this copy.",
        distribution=_distribution(facts, texts.distribution),
        format=facts.format,
        failures=texts.failures,
        info=INFO, rejects=REJECTS, mouth=MOUTH, topology=TOPOLOGY, stats=STATS, contents=CONTENTS,
    )  # fmt: skip


def croissant_json(directory: Path, facts: Facts) -> dict[str, object]:
    """Content of croissant.json for the files that lie in `directory`.

    Raises:
        AssetMissingError: a file is missing.
    """
    texts = texts_of(facts)
    listed = [*(path for table in facts.tables() for path in table.paths), STATS, MOUTH, TOPOLOGY]
    return croissant(
        directory,
        name=texts.title,
        description=one_line(_summary(facts)),
        licence=texts.licence_url,
        version=facts.format.rpartition("-")[2] + ".0.0",
        files=[Path(name) for name in listed],
        records=[table.record_set for table in facts.tables()],
        responsible={
            "rai:dataCollection": one_line(texts.collection),
            "rai:dataLimitations": "Teeth and tongue are a guess from the outside: the angle is of the chin's skin.",
            "rai:dataUseCases": "Talking heads that open their mouths. Not for putting words into anyone's mouth, nor "
            "for identifying anyone.",
            "rai:personalSensitiveInformation": texts.personal,
        },
    )


def _summary(facts: Facts) -> str:
    clips, frames = facts.counts.get("clips", 0), facts.counts.get("frames", 0)
    held = (
        f"Each frame has the face's vertices (vertex order `{facts.topology}`) and one angle of the jaw,"
        if facts.has_meshes
        else f"Each frame has one angle of the jaw (faces of vertex order `{facts.topology}`),"
    )
    return (
        f"{clips} spoken sentences, {frames} frames at {facts.fps} a second, with a mouth for every subject.\n"
        f"{held} from which teeth, gums and tongue\n"
        "follow: they are stiff, so they are made while reading."
    )


def _composition(facts: Facts) -> str:
    if facts.has_meshes:
        return (
            "One clip is one sentence of one subject: its frames, its sound, and of its subject the neutral face and\n"
            "the mouth's fit. In `faces` and `audio` a clip is one row group, so that it reads alone."
        )
    return (
        "One clip is one sentence of one subject: its angles, and of its subject the mouth's fit, in the coordinates\n"
        "of the subject's neutral face. In `angles` a clip is one row group, so that it reads alone."
    )


def _counted(facts: Facts) -> str:
    missing, rejected = len(facts.missing), len(facts.rejected)
    return f"{missing} clip(s) that the splits promise are missing in the corpus; {rejected} could not be used."


def _distribution(facts: Facts, usual: str) -> str:
    if facts.mouth_licence in FREE_LICENCES:
        return usual
    told = _UNFREE_MOUTH.format(name=facts.mouth_name, licence=facts.mouth_licence, mouth=MOUTH, topology=TOPOLOGY)
    return told + usual


def _split_row(name: str, counts: Mapping[str, Any]) -> str:  # Any: json
    label = "in none" if name == UNUSED else name
    numbers = (counts["subjects"], counts["clips"], counts["frames"], f"{counts['seconds']:.1f}")
    return f"| {label} | {' | '.join(map(str, numbers))} |"


def _config_yaml(facts: Facts, table: Table) -> str:
    lines = [f"- config_name: {table.name}"]
    lines += ["  default: true"] if table.name in ("faces", "angles") else []
    lines += ["  data_files:"]
    if table.key == ("subject",):
        return "\n".join([*lines, f"  - {{split: subjects, path: {table.pattern}}}"])
    for split in (*SPLITS, UNUSED):
        paths = [path for path, part in zip(table.paths, facts.part_splits(), strict=True) if part == split]
        if paths:
            lines += [f"  - split: {split}", "    path:", *(f"    - {path}" for path in paths)]
    return "\n".join(lines)


def _loading(facts: Facts) -> str:
    frames, *_, subjects = (table.name for table in facts.tables())
    used = next((split for split in SPLITS if split in facts.part_splits()), UNUSED)
    wanted = tuple(_BLOCKS) if facts.has_meshes else ("frames", "subjects", "pandas", "polars", "duckdb")
    wanted = tuple(name for name in wanted if name != "torch" or used != UNUSED)
    shape = ', frame["vertices"].shape' if facts.has_meshes else ""
    return "".join(_BLOCKS[name].format(split=used, frames=frames, subjects=subjects, shape=shape) for name in wanted)


def _columns_text(table: Table) -> str:
    head = f"Of `{table.name}`:\n\n| column | kind | unit | what |\n|---|---|---|---|\n"
    return head + "\n".join(column_row(column) for column in table.columns) + "\n"
