"""HuBERT, wav2vec2 or WavLM as a trainable encoder that answers at the frame rate of the face motion."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.errors import DataError, ShapeError
from ecavatar.speech.audio import normalise
from ecavatar.speech.precision import store_in_bfloat16
from ecavatar.speech.pretrained import open_pretrained
from ecavatar.speech.sound_facts import Level

FrozenPart = Literal["none", "conv", "all"]
"""What of a speech encoder is not trained: nothing, the convolutional front end (SelfTalk's choice), or all of it."""

FROZEN: Final[Mapping[str, FrozenPart]] = {"none": "none", "convolutions_frozen": "conv", "frozen": "all"}
"""The words of params.yaml for a `FrozenPart`."""

ResampleSite = Literal["before_projection", "after_encoder"]
"""Where 50 features a second become motion frames, by linear interpolation with aligned ends: before the feature
projection, so that the transformer runs at the motion rate and its positions are stretched (FaceFormer, SelfTalk,
CodeTalker, EmoTalk), or after the encoder, which then works as it was pretrained (DiffSpeaker, FaceDiffuser)."""


class SpeechEncoder(nn.Module):
    """Speech samples -> one feature vector per motion frame.

    Feature dimensions are never masked in training (SpecAugment's second half); the published models that face
    animation uses have that probability at 0.

    Source:
        SelfTalk (Peng et al., 2023) and FaceFormer (Fan et al., 2022) for resampling before the projection; DiffSpeaker
        (Ma et al., 2024) for resampling after the encoder.
    """

    def __init__(
        self,
        model: nn.Module,
        frozen: FrozenPart = "conv",
        *,
        resample: ResampleSite = "before_projection",
        normalises: bool = True,
    ) -> None:
        """Wraps a transformers `HubertModel`, `Wav2Vec2Model` or `WavLMModel`.

        Args:
            model: the network.
            frozen: what of it is not trained. A wholly frozen encoder stays in evaluation mode.
            resample: where features come to the motion's rate.
            normalises: the model's processor brings clips to mean 0 and variance 1; see `prepare`.

        Raises:
            DataError: the model has no convolutional front end, feature projection and encoder, or an adapter on top,
                which answers less often than 50 times a second; or `frozen` or `resample` is another word.
        """
        super().__init__()
        missing = [part for part in ("feature_extractor", "feature_projection", "encoder") if not hasattr(model, part)]
        if missing:
            raise DataError(
                f"{type(model).__name__} has no {', '.join(missing)}; expected a HubertModel or a Wav2Vec2Model."
            )
        if getattr(model, "adapter", None) is not None:
            raise DataError(
                f"{type(model).__name__} has an adapter (add_adapter), which is not used here; leave it out."
            )
        if frozen not in FROZEN.values() or resample not in ("before_projection", "after_encoder"):
            raise DataError(
                f"frozen={frozen!r}, resample={resample!r}: expected none, conv or all, and before_projection or "
                "after_encoder. Change the call."
            )
        self.model = model
        self.config: Any = model.config
        self.frozen: FrozenPart = frozen
        self.resample: ResampleSite = resample
        self.normalises = normalises
        self._is_bfloat16 = False
        if frozen != "none":
            part = model if frozen == "all" else model.feature_extractor
            part.requires_grad_(requires_grad=False)
            model.feature_extractor._requires_grad = False  # else it asks the raw samples for a gradient in training
        self.train(model.training)

    @classmethod
    def load(
        cls, source: str | Path, frozen: FrozenPart = "conv", *, resample: ResampleSite = "before_projection"
    ) -> "SpeechEncoder":
        """The encoder in a transformers directory or under a hub id; a CTC head there is left out.

        Raises:
            AssetMissingError: nothing usable at `source`.
            DataError: it is another kind of model, or incomplete.
        """
        opened = open_pretrained(source, "speech encoder")
        return cls(opened.model, frozen, resample=resample, normalises=opened.normalises)

    @property
    def width(self) -> int:
        """Features per frame."""
        return self.config.hidden_size

    @property
    def shortest(self) -> int:
        """Samples that one feature needs: 400 for the published models."""
        return shortest_clip(self.config.conv_kernel, self.config.conv_stride)

    def steps(self, samples: int) -> int:
        """Features, 50 a second, of a clip of so many samples."""
        return count_steps(samples, self.config.conv_kernel, self.config.conv_stride)

    def prepare(
        self, samples: NDArray[np.floating] | Float[Tensor, " samples"], level: Level | None = None
    ) -> Float[Tensor, " prepared"]:
        """One clip as the encoder expects it; see `prepare_samples`."""
        return prepare_samples(samples, normalises=self.normalises, shortest=self.shortest, level=level)

    def train(self, mode: bool = True) -> "SpeechEncoder":
        """Training mode, unless wholly frozen: then features never change."""
        return super().train(mode and self.frozen != "all")

    def to_bfloat16(self) -> "SpeechEncoder":
        """Predicts in bfloat16 from now on: half the memory; see `precision.multiplies_bfloat16` for when it is faster.

        Features stay float32 and move by about 1 %. One way and for prediction only: nothing trains afterwards, and
        the weights do not save or load as before.
        """
        store_in_bfloat16(self.model)
        self.requires_grad_(requires_grad=False)
        self.model.feature_extractor._requires_grad = False
        self.frozen, self._is_bfloat16 = "all", True
        return self.eval()

    def forward(
        self,
        samples: Float[Tensor, "clips samples"],
        lengths: Int[Tensor, " clips"] | Sequence[int] | None,
        frames: int | Sequence[int] | None,
    ) -> Float[Tensor, "clips frames width"]:
        """Features of a padded batch; each clip's are the same as if it were alone.

        Args:
            samples: 16 kHz mono, each clip from `prepare`, padded at the end.
            lengths: samples of each clip without padding; None: no padding.
            frames: motion frames of each clip, or one number for all; shorter clips are padded with zeros. None: as
                many as the encoder has, 50 a second (see `steps`), not resampled.

        Raises:
            ShapeError: counts do not match, a clip is shorter than one feature (400 samples for the published models),
                or fewer than one frame is asked for.
        """
        sample_counts, frame_counts = self._check(samples, lengths, frames)
        with self._precision(samples.device):
            features = self._convolved(samples, sample_counts)
            if self.resample == "before_projection":
                encoded, counts = self._encoded([_resized(f, n) for f, n in zip(features, frame_counts, strict=True)])
                return _zero_padding(encoded.float(), counts)
            encoded, counts = self._encoded(features)
        rows = [
            _resized(row[:count].T[None].float(), n_frames)[0].T
            for row, count, n_frames in zip(encoded, counts, frame_counts, strict=True)
        ]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def _check(
        self, samples: Tensor, lengths: Tensor | Sequence[int] | None, frames: int | Sequence[int] | None
    ) -> tuple[list[int], list[int]]:
        """Samples and frames of each clip."""
        if samples.ndim != 2:
            raise ShapeError(f"expected samples (clips, samples), got shape {tuple(samples.shape)}. Add an axis.")
        n_clips, n_samples = samples.shape
        counts = [n_samples] * n_clips if lengths is None else [int(n) for n in lengths]
        if n_clips < 1 or min(counts, default=0) < self.shortest or max(counts) > n_samples:
            raise ShapeError(
                f"lengths must lie in {self.shortest}..{n_samples} samples, got "
                f"{min(counts, default=0)}..{max(counts, default=0)}. Pad short ones with silence, as `prepare` does."
            )
        if frames is None:
            frame_counts = [self.steps(count) for count in counts]
        else:
            frame_counts = [frames] * n_clips if isinstance(frames, int) else [int(n) for n in frames]
        if not len(counts) == len(frame_counts) == n_clips:
            raise ShapeError(f"{n_clips} clips, {len(counts)} lengths and {len(frame_counts)} frame counts; one each.")
        if min(frame_counts) < 1:
            raise ShapeError(f"at least one frame per clip is needed, got {min(frame_counts)}. Ask for more.")
        return counts, frame_counts

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if not self._is_bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def _convolved(self, samples: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """(1, channels, steps) of each clip."""
        can_pad = self.config.feat_extract_norm == "layer" and len(counts) > 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen == "none"):
            # A CPU's cache prefers one clip after the other: measured as fast, with an eighth of the memory.
            if can_pad and samples.device.type != "cpu":
                return self._convolved_together(samples, counts)
            # A front end with group norm averages over time, so padding would change its features.
            return [self.model.feature_extractor(c[None, :n]) for c, n in zip(samples, counts, strict=True)]

    def _convolved_together(self, samples: Tensor, counts: Sequence[int]) -> list[Tensor]:
        """As clip by clip, for front ends with layer norm only: a feature that exists sees no padding."""
        features = self.model.feature_extractor(samples)
        return [row[None, :, : self.steps(count)] for row, count in zip(features, counts, strict=True)]

    def _encoded(self, features: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Convolutional features of each clip -> padded (clips, longest, width), and the clips' lengths there."""
        counts = [feature.shape[-1] for feature in features]
        batch = nn.utils.rnn.pad_sequence([feature[0].T for feature in features], batch_first=True)
        projected = self.model.feature_projection(batch)
        hidden = projected[0] if isinstance(projected, tuple) else projected  # wav2vec2 answers a pair, HuBERT a tensor
        hidden = self._spec_augment(hidden, counts)
        mask = None if len(set(counts)) == 1 else _valid(counts, hidden)
        return self.model.encoder(hidden, attention_mask=mask).last_hidden_state, counts

    def _spec_augment(self, hidden: Tensor, frame_counts: Sequence[int]) -> Tensor:
        """Hides random spans of time while training (Park et al., 2019), with the probabilities of the config."""
        config = self.config
        is_on = self.training and getattr(config, "apply_spec_augment", True) and config.mask_time_prob > 0
        if not is_on:
            return hidden
        masks = [
            _span_mask(
                count, hidden.shape[1], config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
            )
            for count in frame_counts
        ]
        mask = torch.stack(masks).to(hidden.device)
        return torch.where(mask[..., None], self.model.masked_spec_embed.to(hidden.dtype), hidden)


def prepare_samples(
    samples: NDArray[np.floating] | Float[Tensor, " samples"],
    *,
    normalises: bool,
    shortest: int,
    level: Level | None = None,
) -> Float[Tensor, " prepared"]:
    """One clip as a speech model expects it: at its processor's level, and long enough for one feature.

    Clips of fewer than `shortest` samples (25 ms) are padded with silence at their end; longer ones keep their length.

    Args:
        samples: 16 kHz mono, about -1..1, at least one.
        normalises: bring it to mean 0 and variance 1.
        shortest: samples that one feature needs.
        level: of the whole recording if `samples` is a block of it; None: of `samples`.

    Raises:
        ShapeError: not one clip, or no samples.
    """
    values = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if values.ndim != 1 or not len(values):
        raise ShapeError(f"expected one clip (samples,), at least one sample; got shape {values.shape}. Read it again.")
    wave = normalise(values, level) if normalises else np.asarray(values, dtype=np.float32)
    return torch.from_numpy(np.pad(wave, (0, max(0, shortest - len(wave)))))


def shortest_clip(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that a stack of convolutions needs for one output (400 for HuBERT and wav2vec2)."""
    needed = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        needed = (needed - 1) * stride + kernel
    return needed


def count_steps(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Outputs of a stack of convolutions without padding; 0 if `samples` are too few for one."""
    count = samples
    for kernel, stride in zip(kernels, strides, strict=True):
        count = max(0, (count - kernel) // stride + 1)
    return count


def _resized(features: Float[Tensor, "1 channels steps"], frames: int) -> Float[Tensor, "1 channels frames"]:
    if features.shape[-1] == frames:
        return features
    return functional.interpolate(features, size=frames, mode="linear", align_corners=True)


def _valid(counts: Sequence[int], like: Tensor) -> Tensor:
    """(clips, longest) true where a clip has features."""
    ends = torch.tensor(list(counts), device=like.device)
    return torch.arange(like.shape[1], device=like.device)[None] < ends[:, None]


def _zero_padding(encoded: Tensor, counts: Sequence[int]) -> Tensor:
    if len(set(counts)) == 1:
        return encoded
    return encoded * _valid(counts, encoded)[..., None].to(encoded.dtype)


def _span_mask(count: int, width: int, probability: float, span: int, min_spans: int) -> Tensor:
    """(width,) true on spans that cover about `probability` of the first `count`; draws from torch's generator."""
    mask = torch.zeros(width, dtype=torch.bool)
    if count <= span:
        return mask
    n_spans = max(min_spans, int(probability * count / span + torch.rand(()).item()))
    starts = torch.randint(0, count - span + 1, (n_spans,))
    mask[(starts[:, None] + torch.arange(span)).flatten()] = True
    return mask
