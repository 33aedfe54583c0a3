"""HuBERT or wav2vec2 as a trainable encoder that answers at the frame rate of the face motion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.errors import DataError, ShapeError
from ecavatar.speech.pretrained import from_pretrained

FrozenPart = Literal["none", "conv", "all"]
"""What of a speech encoder is not trained: nothing, the convolutional front end (SelfTalk's choice), or all of it."""


class SpeechEncoder(nn.Module):
    """Speech samples -> one feature vector per motion frame.

    The convolutional features (50 Hz) are interpolated linearly to the number of motion frames *before* the feature
    projection, so the transformer already runs at the motion rate.

    Source:
        SelfTalk (Peng et al., 2023) and FaceFormer (Fan et al., 2022), whose encoders do the same.
    """

    def __init__(self, model: nn.Module, frozen: FrozenPart = "conv") -> None:
        """Wraps a transformers `HubertModel` or `Wav2Vec2Model`.

        Raises:
            DataError: the model has no convolutional front end, feature projection and encoder.
        """
        super().__init__()
        missing = [part for part in ("feature_extractor", "feature_projection", "encoder") if not hasattr(model, part)]
        if missing:
            raise DataError(
                f"{type(model).__name__} has no {', '.join(missing)}; expected a HubertModel or a Wav2Vec2Model."
            )
        self.model = model
        self.config: Any = model.config
        self.frozen: FrozenPart = frozen
        if frozen != "none":
            part = model if frozen == "all" else model.feature_extractor
            part.requires_grad_(requires_grad=False)
            model.feature_extractor._requires_grad = False  # else it asks the raw samples for a gradient in training

    @classmethod
    def load(cls, source: str | Path, frozen: FrozenPart = "conv") -> "SpeechEncoder":
        """The encoder in a transformers directory or under a hub id; a CTC head there is left out.

        Raises:
            AssetMissingError: nothing usable at `source`.
            DataError: it is another kind of model.
        """
        from transformers import AutoModel  # seconds to import

        return cls(from_pretrained(AutoModel.from_pretrained, source, "speech encoder"), frozen)

    @property
    def width(self) -> int:
        """Features per frame."""
        return self.config.hidden_size

    def forward(
        self,
        samples: Float[Tensor, "clips samples"],
        lengths: Int[Tensor, " clips"] | Sequence[int] | None,
        frames: int | Sequence[int],
    ) -> Float[Tensor, "clips frames width"]:
        """Features of a padded batch; each clip's are the same as if it were alone.

        Args:
            samples: 16 kHz mono, each clip normalised to mean 0 and variance 1, padded at the end.
            lengths: samples of each clip without padding; None: no padding.
            frames: motion frames of each clip, or one number for all; shorter clips are padded with zeros.

        Raises:
            ShapeError: counts do not match, a clip is shorter than one feature (400 samples for the published models),
                or fewer than one frame is asked for.
        """
        sample_counts, frame_counts = self._check(samples, lengths, frames)
        # Clip by clip: a front end with group norm averages over time, so padding would change its features.
        features = [
            self._local_features(clip[None, :count], n_frames)
            for clip, count, n_frames in zip(samples, sample_counts, frame_counts, strict=True)
        ]
        batch = nn.utils.rnn.pad_sequence([feature[0] for feature in features], batch_first=True)
        projected = self.model.feature_projection(batch)
        hidden = projected[0] if isinstance(projected, tuple) else projected  # wav2vec2 answers a pair, HuBERT a tensor
        counts = torch.tensor(frame_counts, device=hidden.device)
        mask = torch.arange(hidden.shape[1], device=hidden.device)[None] < counts[:, None]
        hidden = self._spec_augment(hidden, frame_counts)
        is_padded = len(set(frame_counts)) > 1
        encoded = self.model.encoder(hidden, attention_mask=mask if is_padded else None).last_hidden_state
        return encoded * mask[..., None].to(encoded.dtype)

    def _check(
        self, samples: Tensor, lengths: Tensor | Sequence[int] | None, frames: int | Sequence[int]
    ) -> tuple[list[int], list[int]]:
        if samples.ndim != 2:
            raise ShapeError(f"expected samples (clips, samples), got shape {tuple(samples.shape)}.")
        n_clips, n_samples = samples.shape
        sample_counts = [n_samples] * n_clips if lengths is None else [int(n) for n in lengths]
        frame_counts = [frames] * n_clips if isinstance(frames, int) else [int(n) for n in frames]
        if not len(sample_counts) == len(frame_counts) == n_clips:
            raise ShapeError(
                f"{n_clips} clips, {len(sample_counts)} lengths and {len(frame_counts)} frame counts; give one each."
            )
        shortest = shortest_clip(self.model.config.conv_kernel, self.model.config.conv_stride)
        if min(sample_counts) < shortest or max(sample_counts) > n_samples:
            raise ShapeError(
                f"lengths must lie in {shortest}..{n_samples} samples, got {min(sample_counts)}..{max(sample_counts)}. "
                "Pad shorter clips with silence."
            )
        if min(frame_counts) < 1:
            raise ShapeError(f"at least one frame per clip is needed, got {min(frame_counts)}.")
        return sample_counts, frame_counts

    def _local_features(self, clip: Tensor, frames: int) -> Tensor:
        """(1, samples) -> (1, frames, channels)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.frozen == "none"):
            features = self.model.feature_extractor(clip)
        resized = functional.interpolate(features, size=frames, mode="linear", align_corners=True)
        return resized.transpose(1, 2)

    def _spec_augment(self, hidden: Tensor, frame_counts: Sequence[int]) -> Tensor:
        """Hides random spans of time while training (Park et al., 2019), with the probabilities of the config."""
        config = self.config
        is_on = self.training and getattr(config, "apply_spec_augment", True) and config.mask_time_prob > 0
        if not is_on or self.frozen == "all":
            return hidden
        masks = [
            _span_mask(
                count, hidden.shape[1], config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
            )
            for count in frame_counts
        ]
        mask = torch.stack(masks).to(hidden.device)
        return torch.where(mask[..., None], self.model.masked_spec_embed.to(hidden.dtype), hidden)


def shortest_clip(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that a stack of convolutions needs for one output (400 for HuBERT and wav2vec2)."""
    needed = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        needed = (needed - 1) * stride + kernel
    return needed


def _span_mask(count: int, width: int, probability: float, span: int, min_spans: int) -> Tensor:
    """(width,) true on spans that cover about `probability` of the first `count`; draws from torch's generator."""
    mask = torch.zeros(width, dtype=torch.bool)
    if count <= span:
        return mask
    n_spans = max(min_spans, int(probability * count / span + torch.rand(()).item()))
    starts = torch.randint(0, count - span + 1, (n_spans,))
    mask[(starts[:, None] + torch.arange(span)).flatten()] = True
    return mask
