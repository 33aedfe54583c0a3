"""How SelfTalk is trained: clips with their sound, the frozen recogniser's opinion, and the losses' weights."""

import logging
from collections.abc import Sequence
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
    SelfTalk,
    Teacher,
    motion_losses,
    padding_mask,
    reading_losses,
)
from ecavatar.speech.audio import SPEECH_RATE, normalise, resample
from ecavatar.speech.encoder import SpeechEncoder
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.storage.files import atomic_path
from ecavatar.storage.shards import input_hash
from ecavatar.training.loop import figures_of, fixed_threads, seeded_torch, train, write_curve
from ecavatar.training.weights import save_weights
from ecavatar.vocateeth.dataset import VocaTeeth

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class LipClip:
    """One clip as SelfTalk sees it."""

    clip_id: str
    samples: Float[Tensor, " samples"]
    """16 kHz mono, mean 0 and variance 1."""
    offsets: Float[Tensor, "frames vertices 3"]
    """Face vertices minus the subject's template, metres."""
    angles: Float[Tensor, " frames"]
    hidden: Float[Tensor, "steps width"] | None = None
    """The recogniser's last hidden states, once `teach` has run."""
    tokens: Int[Tensor, " tokens"] | None = None
    """Its greedy transcript."""
    features: Float[Tensor, "frames width"] | None = None
    """The frozen encoder's answer, once `encode` has run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LipBatch:
    """Clips padded to the longest."""

    frames: Sequence[int]
    truth: LipMotion
    teacher: Teacher
    samples: Float[Tensor, "clips samples"] | None
    sample_counts: Sequence[int]
    features: Float[Tensor, "clips frames width"] | None


def load_clips(teeth: VocaTeeth, split: str) -> list[LipClip]:
    """All clips of a split, in memory (VOCASET's 320 training clips: 2.5 GB).

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
                samples=torch.from_numpy(normalise(resample(sound, rate, SPEECH_RATE))),
                offsets=torch.from_numpy(offsets),
                angles=torch.from_numpy(np.array(teeth.angles(clip))),
            )
        )
    return clips


@torch.no_grad()
def teach(clips: Sequence[LipClip], recogniser: CtcRecogniser) -> None:
    """Ask the frozen recogniser about every clip, once: its answer does not change while training."""
    silent = []
    for clip in clips:
        hidden, logits = recogniser.hidden_and_logits(clip.samples[None])
        text = recogniser.greedy_text(logits)
        clip.hidden = hidden[0].clone()
        clip.tokens = recogniser.tokens(text) if text else torch.zeros(0, dtype=torch.long)
        if not len(clip.tokens):
            silent.append(clip.clip_id)
    if silent:
        logger.warning(
            "the recogniser hears no text in %d of %d clips (first: %s); they train without the text loss.",
            len(silent), len(clips), silent[0],
        )  # fmt: skip


@torch.no_grad()
def encode(clips: Sequence[LipClip], encoder: SpeechEncoder) -> None:
    """Compute the features of a wholly frozen encoder once per clip, dropout off."""
    encoder.eval()
    for clip in clips:
        clip.features = encoder(clip.samples[None], None, len(clip.offsets))[0].clone()


class SelfTalkSystem(nn.Module):
    """Animator and interpreter together: from a batch to its losses."""

    lips: Tensor

    def __init__(
        self,
        animator: SelfTalk,
        interpreter: LipReadingInterpreter,
        lips: Int[np.ndarray, " n"],
        settings: SelfTalkSettings,
    ) -> None:
        super().__init__()
        self.animator, self.interpreter = animator, interpreter
        self.register_buffer("lips", torch.from_numpy(np.array(lips)).long(), persistent=False)
        self.weights = {
            name: getattr(settings, name) for name in ("reconstruction", "velocity", "angle", "latent", "text")
        }

    def forward(self, batch: LipBatch) -> dict[str, Tensor]:
        """The five losses, unweighted, and `loss`, their weighted sum."""
        features = batch.features
        if features is None:
            features = self.animator.features(batch.samples, batch.sample_counts, batch.frames)
        motion = self.animator.animate(features, padding_mask(batch.frames, features.device))
        losses = motion_losses(motion, batch.truth, batch.frames)
        if self.weights["latent"] or self.weights["text"]:
            hidden, logits = self.interpreter(motion.vertices[:, :, self.lips], batch.frames, batch.teacher.steps)
            losses |= reading_losses(hidden, logits, batch.teacher)
        return losses | {"loss": torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()}


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
            motion = animator.animate(features)
            predicted.append(motion.vertices[0, :, lips].cpu())
            truths.append(clip.offsets[:, lips.cpu()])
            turned.append((motion.angles[0].cpu() - clip.angles).abs())
        figures = {f"val_{name}": value for name, value in sums.items()}
        mean_angle = torch.cat(turned).mean().rad2deg()
        return figures | {"val_lve_m2": _lip_error(predicted, truths), "val_angle_error_deg": float(mean_angle)}


def collate(clips: Sequence[LipClip], blank: int, device: torch.device) -> LipBatch:
    """Clips as one padded batch.

    Raises:
        DataError: a clip has not been through `teach`.
    """
    if any(clip.hidden is None or clip.tokens is None for clip in clips):
        raise DataError("clips need the recogniser's opinion first: call teach(clips, recogniser).")
    has_features = all(clip.features is not None for clip in clips)

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
        truth=LipMotion(
            vertices=padded([clip.offsets for clip in clips]), angles=padded([clip.angles for clip in clips])
        ),
        teacher=teacher,
        samples=None if has_features else padded([clip.samples for clip in clips]),
        sample_counts=[len(clip.samples) for clip in clips],
        features=padded([clip.features for clip in clips]) if has_features else None,
    )


def selftalk_objective(
    clips: Sequence[LipClip],
    validation: Sequence[LipClip],
    encoder: SpeechEncoder,
    recogniser: CtcRecogniser,
    lips: Int[np.ndarray, " n"],
    settings: SelfTalkSettings,
) -> SelfTalkObjective:
    """The objective with a new network; draws its weights from torch's generator (see `loop.seeded_torch`).

    Args:
        clips: training clips; the recogniser's opinion, and a frozen encoder's features, are added to them.
        validation: clips of other subjects.
        encoder: pretrained; its weights are copied into the network.
        recogniser: the frozen teacher.
        lips: lip vertices.
        settings: section `selftalk`.
    """
    everything = [*clips, *validation]
    teach(everything, recogniser)
    animator = SelfTalk.on_encoder(
        encoder,
        n_vertices=clips[0].offsets.shape[1],
        feature_dim=settings.feature_dim,
        heads=settings.heads,
        dropout=settings.dropout,
        output_scale_m=settings.output_scale_m,
    )
    if animator.encoder.frozen == "all":
        encode(everything, animator.encoder)
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
    system = SelfTalkSystem(animator, interpreter, lips, settings)
    return SelfTalkObjective(module=system, clips=clips, validation=validation, blank=recogniser.blank)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTalkSources:
    """What SelfTalk is trained from."""

    face_model: Path
    vocateeth: Path
    hubert: Path
    """A transformers directory: encoder, and recogniser with its letters."""


def fit_selftalk(
    sources: SelfTalkSources, settings: SelfTalkSettings, seed: int, *, out: Path, curve: Path, checkpoint: Path
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
    data_hash = input_hash(teeth.fingerprint(), sources.hubert, settings)
    with fixed_threads(settings.training.threads), seeded_torch(seed, "selftalk", "weights"):
        objective = selftalk_objective(
            load_clips(teeth, "train"),
            load_clips(teeth, "val"),
            SpeechEncoder.load(sources.hubert, frozen="all" if settings.encoder == "frozen" else "conv"),
            CtcRecogniser.load(sources.hubert),
            asset.regions["lips"],
            settings,
        )
        state = train(objective, settings.training, seed=seed, data_hash=data_hash, checkpoint=checkpoint)
    figures = objective.baselines | figures_of(state)
    facts = {"topology": asset.topology, "fps": teeth.fps, "data_hash": data_hash, "epoch": state.best_epoch}
    with atomic_path(out) as directory:
        save_weights(directory, objective.module.animator, facts | {"figures": figures})
        save_weights(directory, objective.module.interpreter, facts, stem="interpreter")
    write_curve(curve, state.rows)
    checkpoint.unlink(missing_ok=True)
    return figures


def _lip_error(predicted: Sequence[Tensor], truths: Sequence[Tensor]) -> float:
    """Mean over all frames of the largest squared distance, m^2."""
    largest = [(p - t).double().square().sum(dim=-1).amax(dim=-1) for p, t in zip(predicted, truths, strict=True)]
    return float(torch.cat(largest).mean())
