"""All corpora of the sample world, made in independent parts and put in place together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from threadpoolctl import threadpool_limits

from ecavatar.config import CorporaSettings
from ecavatar.face.model import FaceAsset
from ecavatar.sample import affectnet, mead, ravdess, vocaset
from ecavatar.sample.world import SampleWorld, truth_table
from ecavatar.storage.files import atomic_path, clean_stale
from ecavatar.storage.parquet import write_table

FACES_PER_PART = 20
"""Images of one part: a second or two of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporaPaths:
    """Where the corpora go; each folder appears whole or not at all."""

    affectnet: Path
    vocaset: Path
    ravdess: Path
    mead: Path
    truth: Path
    """affectnet.parquet, vocaset.parquet, ravdess.parquet, mead.parquet: what a real corpus would not tell."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work that no other piece waits for."""

    corpus: Literal["affectnet", "vocaset", "ravdess", "mead"]
    first: int
    """First item of the corpus' plan."""
    last: int
    """Item after the last one."""


class CorporaBuild:
    """The work of one run: plans, parts and how they are joined. Parts may be made in any order, in several threads."""

    def __init__(self, asset: FaceAsset, settings: CorporaSettings, seed: int, folders: CorporaPaths) -> None:
        self.world = SampleWorld(asset=asset, seed=seed)
        self.settings, self.folders = settings, folders
        self.faces = affectnet.plan_faces(settings, self.world)
        self.subjects = vocaset.plan_subjects(settings)
        self.takes = {"ravdess": ravdess.plan_takes(settings), "mead": mead.plan_takes(settings)}

    @property
    def parts(self) -> list[Part]:
        """All parts, long ones first."""
        parts = [Part("vocaset", row, row + 1) for row in range(len(self.subjects))]
        starts = range(0, len(self.faces), FACES_PER_PART)
        parts += [Part("affectnet", start, min(start + FACES_PER_PART, len(self.faces))) for start in starts]
        parts += [Part("ravdess", row, row + 1) for row in range(len(self.takes["ravdess"]))]
        return parts + [Part("mead", row, row + 1) for row in range(len(self.takes["mead"]))]

    def make(self, part: Part) -> Any:  # what `finish` expects of the corpus; nobody else looks inside
        """Write a part's files into the folders; what `finish` needs to know of it."""
        rows = slice(part.first, part.last)
        if part.corpus == "affectnet":
            return affectnet.make_faces(self.world, self.faces[rows], self.settings, self.folders.affectnet)
        if part.corpus == "vocaset":
            meshes = self.folders.vocaset / f"{part.first:02d}.meshes"
            return vocaset.record_subject(self.world, self.subjects[part.first], meshes)
        maker, folder = (ravdess, self.folders.ravdess) if part.corpus == "ravdess" else (mead, self.folders.mead)
        return maker.make_take(self.world, self.takes[part.corpus][part.first], self.settings, folder)

    def finish(self, made: Sequence[tuple[Part, Any]]) -> None:  # what `make` returned
        """Write the lists, the joined files and the truth, once all parts are made."""
        in_order = sorted(made, key=lambda pair: (pair[0].corpus, pair[0].first))
        by_corpus = {
            corpus: [result for part, result in in_order if part.corpus == corpus]
            for corpus in ("affectnet", "vocaset", "ravdess", "mead")
        }
        truth = self.folders.truth
        lines = {index: line for part_lines, _ in by_corpus["affectnet"] for index, line in part_lines.items()}
        affectnet.write_lists(self.faces, lines, self.folders.affectnet)
        truths = [face for _, faces in by_corpus["affectnet"] for face in faces]
        tags = {"topology": self.world.asset.topology, "basis": self.world.asset.basis}
        write_table(truth / "affectnet.parquet", affectnet.face_truth_table(truths), tags)
        vocaset.write_vocaset(by_corpus["vocaset"], self.folders.vocaset)
        jaw = vocaset.jaw_truth_table(by_corpus["vocaset"])
        write_table(truth / "vocaset.parquet", jaw, tags | {"fps": str(vocaset.NATIVE_FPS)}, row_group_size=4096)
        for corpus, fps in (("ravdess", ravdess.FPS), ("mead", mead.FPS)):
            clips = {t.clip_id: motion for t, motion in zip(self.takes[corpus], by_corpus[corpus], strict=True)}
            table = truth_table(dict(sorted(clips.items())))
            write_table(truth / f"{corpus}.parquet", table, tags | {"fps": str(fps)}, row_group_size=256)

    def summary(self) -> str:
        """One line about what is made."""
        films = sum(map(len, self.takes.values()))
        sentences = sum(len(subject.sentences) for subject in self.subjects)
        return f"{len(self.faces)} images, {sentences} sentences of {len(self.subjects)} subjects, {films} films"


RunParts = Callable[[CorporaBuild], Sequence[tuple[Part, Any]]]
"""Makes all parts of a build, in any order or at once."""


def run_in_order(build: CorporaBuild) -> list[tuple[Part, Any]]:
    """Make all parts one after the other."""
    return [(part, build.make(part)) for part in build.parts]


def write_sample_corpora(
    asset: FaceAsset, settings: CorporaSettings, seed: int, out: CorporaPaths, run: RunParts = run_in_order
) -> str:
    """Write all corpora of the sample world and their truth.

    Args:
        asset: the head everybody has.
        settings: sizes.
        seed: of all randomness; equal arguments give equal bytes, however `run` orders the parts.
        out: folders to write; existing ones are replaced.
        run: how the parts are made.

    Returns:
        One line about what was made.
    """
    with _single_threaded_sums(), _new_folders(out) as folders:
        build = CorporaBuild(asset, settings, seed, folders)
        build.finish(run(build))
        return build.summary()


@contextmanager
def _new_folders(out: CorporaPaths) -> Iterator[CorporaPaths]:
    """Empty temporary folders that take the places of `out` together when the block ends well."""
    names = ("affectnet", "vocaset", "ravdess", "mead", "truth")
    for parent in {getattr(out, name).parent for name in names}:
        clean_stale(parent)
    with ExitStack() as stack:
        folders = {name: stack.enter_context(atomic_path(getattr(out, name))) for name in names}
        for folder in folders.values():
            folder.mkdir()
        yield CorporaPaths(**folders)


@contextmanager
def _single_threaded_sums() -> Iterator[None]:
    """Sums of several threads differ in their last bits; parallel parts make up for the lost speed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
