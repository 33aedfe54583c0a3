"""How SelfTalk is trained: clips with their sound, the frozen recogniser's opinion, and the losses' weights."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ecavatar.config import SelfTalkSettings
from ecavatar.errors import DataError
from ecavatar.face.model import FaceAsset
from ecavatar.models.selftalk import (
    LipMotion,
    LipReadingInterpreter,
    Mouth,
    SelfTalk,
    Teacher,
    motion_losses,
    padding_mask,
    reading_losses,
)
from ecavatar.speech.audio import SPEECH_RATE, resample
from ecavatar.speech.encoder import FROZEN, SpeechEncoder
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.storage.files import atomic_path, read_json
from ecavatar.storage.shards import input_hash
from ecavatar.training.card import write_model_card
from ecavatar.training.loop import figures_of, fixed_threads, seeded_torch, train, write_curve
from ecavatar.training.processes import is_main_process
from ecavatar.training.weights import save_weights
from ecavatar.vocateeth.dataset import VocaTeeth
from ecavatar.vocateeth.windows import SubjectMouths

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class LipClip:
    """One clip as SelfTalk sees it."""

    clip_id: str
    subject: str
    samples: Float[Tensor, " samples"]
    """16 kHz mono, as recorded."""
    offsets: Float[Tensor, "frames vertices 3"]
    """Face vertices minus the subject's template, metres."""
    angles: Float[Tensor, " frames"]
    transcript: str | None = None
    """What is said, where the corpus tells; None: the recogniser's own transcript is taken."""
    wave: Float[Tensor, " prepared"] | None = None
    """The samples as the encoder takes them, once `prepare` has run."""
    hidden: Float[Tensor, "steps width"] | None = None
    """The recogniser's last hidden states, once `teach` has run."""
    tokens: Int[Tensor, " tokens"] | None = None
    """The transcript in the recogniser's letters; none where nothing is said or understood."""
    features: Float[Tensor, "frames width"] | None = None
    """The frozen encoder's answer, once `encode` has run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LipBatch:
    """Clips padded to the longest."""

    frames: Sequence[int]
    subjects: Sequence[str]
    truth: LipMotion
    """Of the face; a regressed mouth follows from the angles."""
    teacher: Teacher
    samples: Float[Tensor, "clips samples"] | None
    sample_counts: Sequence[int]
    features: Float[Tensor, "clips frames width"] | None


def load_clips(teeth: VocaTeeth, split: str, transcripts: Mapping[str, str] | None = None) -> list[LipClip]:
    """All clips of a split, in memory (VOCASET's 320 training clips: 2.5 GB).

    Faces only, also for a network that regresses the mouth: its vertices follow from the angles, batch by batch, which
    keeps two thirds of the memory free.

    Args:
        teeth: the dataset.
        split: train, val or test.
        transcripts: clip id -> what is said; clips that are not in it train against the recogniser's own transcript.

    Raises:
        DataError: the split is empty, or a part is damaged.
    """
    templates = teeth.templates()
    clips = []
    for clip in teeth.of_split(split):
        sound, rate = teeth.audio(clip)
        offsets = teeth.vertices(clip) - templates[clip.subject]
        clips.append(
            LipClip(
                clip_id=clip.clip_id,
                subject=clip.subject,
                samples=torch.from_numpy(resample(sound, rate, SPEECH_RATE)),
                offsets=torch.from_numpy(offsets),
                angles=torch.from_numpy(np.array(teeth.angles(clip))),
                transcript=(transcripts or {}).get(clip.clip_id),
            )
        )
    return clips


def read_transcripts(path: Path) -> dict[str, str]:
    """A json file of clip id -> what is said in it, any case and punctuation.

    Raises:
        AssetMissingError: no such file.
        DataError: it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DataError(f'{path}: expected a json object of clip id and text, as {{"clip": "what is said"}}.')
    return value


@torch.no_grad()
def teach(clips: Sequence[LipClip], recogniser: CtcRecogniser) -> None:
    """Ask the frozen recogniser about every clip, once: its answer does not change while training.

    It is in evaluation mode, unlike the original's, whose dropout and masking made the teacher noisy. A clip's own
    transcript goes before the recogniser's.
    """
    silent = []
    for clip in clips:
        hidden, logits = recogniser.hidden_and_logits(recogniser.prepare(clip.samples)[None])
        text = recogniser.greedy_text(logits) if clip.transcript is None else clip.transcript
        clip.hidden = hidden[0].clone()
        clip.tokens = recogniser.tokens(text)
        if not len(clip.tokens):
            silent.append(clip.clip_id)
    if silent:
        logger.warning(
            "the recogniser hears no text in %d of %d clips (first: %s); they train without the text loss.",
            len(silent), len(clips), silent[0],
        )  # fmt: skip


def prepare(clips: Sequence[LipClip], encoder: SpeechEncoder) -> None:
    """Bring every clip's samples to the encoder's level, once."""
    for clip in clips:
        clip.wave = encoder.prepare(clip.samples)


@torch.no_grad()
def encode(clips: Sequence[LipClip], encoder: SpeechEncoder) -> None:
    """Compute the features of a wholly frozen encoder once per clip, dropout off."""
    encoder.eval()
    for clip in clips:
        clip.features = encoder(encoder.prepare(clip.samples)[None], None, len(clip.offsets))[0].clone()


class SelfTalkSystem(nn.Module):
    """Animator and interpreter together: from a batch to its losses."""

    lips: Tensor

    def __init__(
        self,
        animator: SelfTalk,
        interpreter: LipReadingInterpreter,
        lips: Int[np.ndarray, " n"],
        settings: SelfTalkSettings,
        mouths: SubjectMouths | None = None,
    ) -> None:
        """Puts the networks together.

        Args:
            animator: the network that is wanted.
            interpreter: what it is trained against.
            lips: lip vertices of the face.
            settings: weights of the losses.
            mouths: of all subjects, for an animator that regresses the mouth.

        Raises:
            DataError: the animator regresses a mouth and has none to learn from, or one of another size.
        """
        super().__init__()
        self.animator, self.interpreter = animator, interpreter
        self.mouths = mouths if animator.n_mouth else None
        if animator.n_mouth and mouths is None:
            raise DataError(
                f"the animator regresses {animator.n_mouth} mouth vertices; give the mouths of VOCATeeth to learn from."
            )
        self.register_buffer("lips", torch.from_numpy(np.array(lips)).long(), persistent=False)
        self.weights = {
            name: getattr(settings, name) for name in ("reconstruction", "velocity", "angle", "latent", "text")
        }

    def forward(self, batch: LipBatch) -> dict[str, Tensor]:
        """The losses, unweighted, and `loss`, their weighted sum."""
        features = batch.features
        if features is None:
            features = self.animator.features(batch.samples, batch.sample_counts, batch.frames)
        motion = self.animator.animate(features, padding_mask(batch.frames, features.device))
        losses = motion_losses(motion, self._truth(batch), batch.frames)
        if self.weights["latent"] or self.weights["text"]:
            hidden, logits = self.interpreter(motion.vertices[:, :, self.lips], batch.frames, batch.teacher.steps)
            losses |= reading_losses(hidden, logits, batch.teacher)
        return losses | {"loss": self.total(losses)}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        return torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()

    @torch.no_grad()
    def _truth(self, batch: LipBatch) -> LipMotion:
        """Offsets of the face, and of the mouth behind it where it is regressed."""
        truth = batch.truth
        if self.mouths is None or truth.angles is None:
            return truth
        still = truth.vertices.new_zeros(len(batch.subjects), 1, truth.vertices.shape[2], 3)
        heads = self.mouths(truth.vertices, truth.angles, batch.subjects)
        return LipMotion(
            vertices=heads - self.mouths(still, truth.angles.new_zeros(len(heads), 1), batch.subjects),
            angles=truth.angles,
        )


@dataclass(kw_only=True, eq=False)
class SelfTalkObjective:
    """SelfTalk's task for `ecavatar.training.loop.train`."""

    module: SelfTalkSystem
    clips: Sequence[LipClip]
    validation: Sequence[LipClip]
    blank: int
    name: str = "selftalk"
    score: str = "val_lve_m2"
    baselines: dict[str, float] = field(init=False)
    """Validation LVE of the neutral face and of the mean training motion, m^2."""

    def __post_init__(self) -> None:
        lips = self.module.lips
        total = torch.stack([clip.offsets.double().sum(dim=0) for clip in self.clips]).sum(dim=0)
        mean = (total / sum(len(clip.offsets) for clip in self.clips)).float()
        truths = [clip.offsets[:, lips] for clip in self.validation]
        self.baselines = {
            "neutral_lve_m2": _lip_error([torch.zeros_like(truth) for truth in truths], truths),
            "train_mean_lve_m2": _lip_error([mean[lips].expand_as(truth) for truth in truths], truths),
        }

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, items: Sequence[int], device: torch.device) -> LipBatch:
        """Padded tensors of these clips."""
        return collate([self.clips[item] for item in items], self.blank, device)

    def describe(self, items: Sequence[int]) -> str:
        """Clip ids."""
        return ", ".join(self.clips[item].clip_id for item in items)

    def lengths(self) -> list[int]:
        """Frames of every training clip."""
        return [len(clip.offsets) for clip in self.clips]

    def weight(self, items: Sequence[int]) -> dict[str, float]:
        """What each loss of a batch of these clips is a mean over: frames, their differences, steps, spoken clips."""
        clips = [self.clips[item] for item in items]
        frames = float(sum(len(clip.offsets) for clip in clips))
        steps = sum(len(clip.hidden) for clip in clips if clip.hidden is not None)
        spoken = sum(clip.tokens is not None and len(clip.tokens) > 0 for clip in clips)
        return {
            "reconstruction": frames,
            "velocity": frames - len(clips),
            "angle": frames,
            "latent": float(steps),
            "text": float(spoken),
        }

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised; see `SelfTalkSystem.total`."""
        return self.module.total(losses)

    def validate(self, device: torch.device) -> dict[str, float]:
        """LVE (mean over all frames of the largest squared lip distance), vertex error, angle error and losses."""
        animator, lips = self.module.animator, self.module.lips
        predicted, truths, turned, sums = [], [], [], {}
        for clip in self.validation:
            batch = collate([clip], self.blank, device)
            for name, value in self.module(batch).items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(self.validation)
            features = batch.features
            if features is None:
                features = animator.features(batch.samples, None, batch.frames)
            motion = animator.animate(features, face_only=True)
            predicted.append(motion.vertices[0, :, lips].cpu())
            truths.append(clip.offsets[:, lips.cpu()])
            if motion.angles is not None:
                turned.append((motion.angles[0].cpu() - clip.angles).abs())
        figures = {f"val_{name}": value for name, value in sums.items()}
        figures["val_lve_m2"] = _lip_error(predicted, truths)
        if turned:
            figures["val_angle_error_deg"] = float(torch.cat(turned).mean().rad2deg())
        return figures


def collate(clips: Sequence[LipClip], blank: int, device: torch.device) -> LipBatch:
    """Clips as one padded batch.

    Raises:
        DataError: a clip has not been through `teach`, or through `prepare` or `encode`.
    """
    if any(clip.hidden is None or clip.tokens is None for clip in clips):
        raise DataError("clips need the recogniser's opinion first: call teach(clips, recogniser).")
    has_features = all(clip.features is not None for clip in clips)
    if not has_features and any(clip.wave is None for clip in clips):
        raise DataError("clips need the encoder's level first: call prepare(clips, encoder).")

    def padded(tensors: Sequence[Any]) -> Tensor:
        return nn.utils.rnn.pad_sequence(list(tensors), batch_first=True).to(device)

    teacher = Teacher(
        hidden=padded([clip.hidden for clip in clips]),
        steps=[len(clip.hidden) for clip in clips],
        tokens=torch.cat([clip.tokens for clip in clips]).to(device),
        token_counts=torch.tensor([len(clip.tokens) for clip in clips]),
        blank=blank,
    )
    return LipBatch(
        frames=[len(clip.offsets) for clip in clips],
        subjects=[clip.subject for clip in clips],
        truth=LipMotion(
            vertices=padded([clip.offsets for clip in clips]), angles=padded([clip.angles for clip in clips])
        ),
        teacher=teacher,
        samples=None if has_features else padded([clip.wave for clip in clips]),
        sample_counts=[] if has_features else [len(clip.wave) for clip in clips if clip.wave is not None],
        features=padded([clip.features for clip in clips]) if has_features else None,
    )


def selftalk_objective(
    clips: Sequence[LipClip],
    validation: Sequence[LipClip],
    encoder: SpeechEncoder,
    recogniser: CtcRecogniser,
    lips: Int[np.ndarray, " n"],
    settings: SelfTalkSettings,
    mouths: SubjectMouths | None = None,
    mouth: Mouth = "rigged",
) -> SelfTalkObjective:
    """The objective with a new network; draws its weights from torch's generator (see `loop.seeded_torch`).

    Args:
        clips: training clips; the recogniser's opinion, and a frozen encoder's features, are added to them.
        validation: clips of other subjects.
        encoder: pretrained; its weights are copied into the network.
        recogniser: the frozen teacher.
        lips: lip vertices.
        settings: section `selftalk`.
        mouths: of all subjects; needed to regress them.
        mouth: `rigged` or `regressed`.

    Raises:
        DataError: a mouth is to be regressed and `mouths` is None.
    """
    if mouth == "regressed" and mouths is None:
        raise DataError("a regressed mouth is learned from the mouths of VOCATeeth; give them, or set it to rigged.")
    everything = [*clips, *validation]
    teach(everything, recogniser)
    animator = SelfTalk.on_encoder(
        encoder,
        n_vertices=clips[0].offsets.shape[1],
        feature_dim=settings.feature_dim,
        heads=settings.heads,
        dropout=settings.dropout,
        output_scale_m=settings.output_scale_m,
        mouth=mouth,
        n_mouth=_mouth_size(mouths) if mouths is not None and mouth == "regressed" else 0,
    )
    if animator.encoder.frozen == "all":
        encode(everything, animator.encoder)
    else:
        prepare(everything, animator.encoder)
    interpreter = LipReadingInterpreter(
        n_lips=len(lips),
        width=recogniser.width,
        vocabulary=recogniser.vocabulary_size,
        layers=settings.interpreter_layers,
        heads=settings.interpreter_heads,
        ffn=settings.interpreter_ffn,
        dropout=settings.dropout,
        scale_m=settings.output_scale_m,
    )
    system = SelfTalkSystem(animator, interpreter, lips, settings, mouths)
    return SelfTalkObjective(module=system, clips=clips, validation=validation, blank=recogniser.blank)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTalkSources:
    """What SelfTalk is trained from."""

    face_model: Path
    vocateeth: Path
    hubert: Path
    """A transformers directory: encoder, and recogniser with its letters."""
    transcripts: Path | None = None
    """Json of clip id -> what is said, where a corpus has it; None: the recogniser's own transcripts."""


def fit_selftalk(
    sources: SelfTalkSources,
    settings: SelfTalkSettings,
    seed: int,
    *,
    out: Path,
    curve: Path,
    checkpoint: Path,
) -> dict[str, float]:
    """Train SelfTalk and write weights, curve and, apart, the interpreter.

    Args:
        sources: inputs.
        settings: section `selftalk`.
        seed: of params.yaml.
        out: directory for model.* (the animator) and interpreter.*; appears whole.
        curve: csv, one row an epoch.
        checkpoint: file to resume from; removed at the end.

    Returns:
        Validation figures of the chosen epoch and the baselines' LVE.

    Raises:
        EcavatarError: a source is missing or does not fit, or training cannot go on.
    """
    asset = FaceAsset.load(sources.face_model)
    teeth = VocaTeeth.open(sources.vocateeth)
    teeth.require_topology(asset.topology)
    said = {} if sources.transcripts is None else read_transcripts(sources.transcripts)
    data_hash = input_hash(teeth.fingerprint(), sources.hubert, settings, said)
    with fixed_threads(settings.training.threads), seeded_torch(seed, "selftalk", "weights"):
        objective = selftalk_objective(
            load_clips(teeth, "train", said),
            load_clips(teeth, "val", said),
            SpeechEncoder.load(sources.hubert, FROZEN[settings.encoder], resample=settings.resample),
            CtcRecogniser.load(sources.hubert),
            asset.regions["lips"],
            settings,
            SubjectMouths(teeth) if settings.mouth == "regressed" else None,
            settings.mouth,
        )
        state = train(objective, settings.training, seed=seed, data_hash=data_hash, checkpoint=checkpoint)
    figures = objective.baselines | figures_of(state)
    facts = {"topology": asset.topology, "fps": teeth.fps, "data_hash": data_hash, "epoch": state.best_epoch}
    facts["mouth"] = {"name": teeth.mouth.name, "vertices": len(teeth.mouth.vertices)}
    if is_main_process():
        with atomic_path(out) as directory:
            save_weights(directory, objective.module.animator, facts | {"figures": figures})
            save_weights(directory, objective.module.interpreter, facts, stem="interpreter")
            write_model_card(directory, settings, seed)
        write_curve(curve, state.rows)
        checkpoint.unlink(missing_ok=True)
    return figures


def _lip_error(predicted: Sequence[Tensor], truths: Sequence[Tensor]) -> float:
    """Mean over all frames of the largest squared distance, m^2."""
    largest = [(p - t).double().square().sum(dim=-1).amax(dim=-1) for p, t in zip(predicted, truths, strict=True)]
    return float(torch.cat(largest).mean())


def _mouth_size(mouths: SubjectMouths) -> int:
    """Vertices of a mouth, the same mesh for every subject."""
    return len(next(mouths.buffers()))
