"""SelfTalk: speech -> lip-synchronised face motion, supervised by reading its own lips.

Three maps close a triangle: the facial animator f (speech -> motion, `SelfTalk`), a frozen speech recogniser g
(speech -> letters, `ecavatar.speech.recogniser`) and the lip-reading interpreter h (lips -> letters,
`LipReadingInterpreter`). Training asks h(f(speech)) to agree with g(speech); at inference only f runs, so interpreter
and recogniser are separate modules that prediction neither loads nor calls.

Changes against the original: HuBERT as encoder (the paper); by default a jaw angle per frame beside the face vertices
(`rigged`) instead of the paper's 10,028 regressed mouth vertices (`regressed`). Positional encoding and attention bias
are left out, as the original builds but never uses them. Batches are padded and masked; a clip's result does not depend
on its neighbours.

Source:
    Peng et al., SelfTalk: A Self-Supervised Commutative Training Diagram to Comprehend 3D Talking Faces, ACM MM 2023;
    the ECAvatar paper, section 4.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.errors import DataError, ShapeError
from ecavatar.speech.encoder import FrozenPart, ResampleSite, SpeechEncoder
from ecavatar.speech.sound_facts import Level

Mouth = Literal["rigged", "regressed"]
"""How the mouth moves: `rigged` gives one jaw angle a frame, which turns the lower teeth rigidly (ours); `regressed`
gives every mouth vertex behind those of the face (the paper), and no angle. Trained alike on the sample, by
`ecavatar.training.selftalk_mouths`: lip vertex error 9.12e-6 against 9.22e-6 m^2, teeth rigid against bent by 0.015 mm
(0.043 at most), the mouth 0.43 against 0.40 mm from the rig's, 0.5 against 1.5 million weights behind the encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LipMotion:
    """Motion of one clip or of a padded batch of clips (a leading axis more)."""

    vertices: Float[Tensor, "*clips frames vertices 3"]
    """Metres: positions from `predict`, offsets from the template inside the network."""
    angles: Float[Tensor, "*clips frames"] | None
    """Jaw angle, radians, positive open; None from a network that regresses the mouth."""


class SelfTalk(nn.Module):
    """The facial animator: speech encoder, one transformer decoder layer, linear maps to vertex offsets and jaw angle.

    The output layers start at zero, so the first prediction is the template with a closed mouth. Of all weights the
    vertex layer of a regressed mouth is the second largest part after the encoder: 23 million for 15,051 vertices.
    """

    def __init__(
        self,
        *,
        encoder: Mapping[str, Any],
        frozen: FrozenPart,
        n_vertices: int,
        feature_dim: int,
        heads: int,
        dropout: float,
        output_scale_m: float,
        mouth: Mouth = "rigged",
        n_mouth: int = 0,
        resample: ResampleSite = "before_projection",
        normalises: bool = True,
    ) -> None:
        """Builds the network with random weights, those of the encoder included.

        Args:
            encoder: configuration of a transformers HuBERT or wav2vec2 model, `model_type` included.
            frozen: what of the encoder is not trained.
            n_vertices: V of the topology.
            feature_dim: width of the decoder; its feed-forward part is twice as wide.
            heads: attention heads; must divide `feature_dim`.
            dropout: of the decoder.
            output_scale_m: metres per unit of the vertex layer.
            mouth: what is predicted of the mouth.
            n_mouth: vertices behind the face's that are regressed; 0 for a rigged mouth, or for a face without one.
            resample: where the encoder comes to the motion's frame rate.
            normalises: the encoder takes clips of mean 0 and variance 1.

        Raises:
            DataError: `encoder` is not a HuBERT or wav2vec2 configuration, `heads` does not divide `feature_dim`, or a
                rigged mouth is asked to have regressed vertices.
        """
        super().__init__()
        if mouth not in ("rigged", "regressed") or n_mouth < 0 or (mouth == "rigged" and n_mouth):
            raise DataError(
                f"mouth={mouth!r} with {n_mouth} vertices: expected rigged with 0, or regressed with those of the "
                "mouth mesh. Change selftalk.mouth."
            )
        if feature_dim % heads:
            raise DataError(
                f"feature_dim {feature_dim} must be a multiple of heads {heads}. Change selftalk in params.yaml."
            )
        self._arguments = {
            "encoder": dict(encoder), "frozen": frozen, "n_vertices": n_vertices, "feature_dim": feature_dim,
            "heads": heads, "dropout": dropout, "output_scale_m": output_scale_m, "mouth": mouth, "n_mouth": n_mouth,
            "resample": resample, "normalises": normalises,
        }  # fmt: skip
        self.n_vertices, self.n_mouth = n_vertices, n_mouth
        self.mouth: Mouth = mouth
        self.output_scale_m = output_scale_m
        self.encoder = SpeechEncoder(_speech_model(encoder), frozen, resample=resample, normalises=normalises)
        self.audio_feature_map = nn.Linear(self.encoder.width, feature_dim)
        layer = nn.TransformerDecoderLayer(feature_dim, heads, 2 * feature_dim, dropout, batch_first=True)
        self.transformer_decoder = nn.TransformerDecoder(layer, num_layers=1)
        self.vertex_map = _zero_linear(feature_dim, (n_vertices + n_mouth) * 3)
        self.angle_map = _zero_linear(feature_dim, 1) if mouth == "rigged" else None

    @classmethod
    def on_encoder(cls, encoder: SpeechEncoder, **sizes: Any) -> "SelfTalk":
        """A new network around a pretrained encoder, whose weights are copied.

        Args:
            encoder: from `SpeechEncoder.load`.
            sizes: the constructor's other arguments.
        """
        config = {key: value for key, value in encoder.model.config.to_diff_dict().items() if key not in _NOT_SIZES}
        config["model_type"] = encoder.model.config.model_type
        network = cls(
            encoder=config, frozen=encoder.frozen, resample=encoder.resample, normalises=encoder.normalises, **sizes
        )
        network.encoder.load_state_dict(encoder.state_dict())
        return network

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, as json values."""
        return dict(self._arguments)

    def features(
        self, samples: Float[Tensor, "clips samples"], lengths: Sequence[int] | None, frames: int | Sequence[int]
    ) -> Float[Tensor, "clips frames width"]:
        """Speech features at the motion's frame rate; see `SpeechEncoder.forward`."""
        return self.encoder(samples, lengths, frames)

    def animate(
        self,
        features: Float[Tensor, "clips frames width"],
        is_padding: Bool[Tensor, "clips frames"] | None = None,
        *,
        face_only: bool = False,
    ) -> LipMotion:
        """Offsets from the template and jaw angles.

        Args:
            features: from `features`.
            is_padding: true after a clip's last frame; None: no padding. Results there mean nothing.
            face_only: leave a regressed mouth out, and its share of the work.
        """
        x = self.audio_feature_map(features)
        y = self.transformer_decoder(x, x, tgt_key_padding_mask=is_padding, memory_key_padding_mask=is_padding)
        if face_only and self.n_mouth:
            rows = 3 * self.n_vertices
            flat = functional.linear(y, self.vertex_map.weight[:rows], self.vertex_map.bias[:rows])
        else:
            flat = self.vertex_map(y)
        angles = None if self.angle_map is None else self.angle_map(y)[..., 0]
        return LipMotion(vertices=flat.unflatten(-1, (-1, 3)) * self.output_scale_m, angles=angles)

    @torch.no_grad()
    def offsets(
        self, samples: Float[Tensor, " samples"], frames: int, level: Level | None = None, *, face_only: bool = False
    ) -> LipMotion:
        """Offsets from a template and jaw angles of one clip, on the network's device, with dropout off.

        Args:
            samples: 16 kHz mono, any loudness, at least one; brought to the encoder's level here.
            frames: how many frames to make of it.
            level: of the whole recording if `samples` is a part of it.
            face_only: leave a regressed mouth out.

        Raises:
            ShapeError: no samples, or no frames.
        """
        was_training = self.training
        self.eval()
        try:
            wave = self.encoder.prepare(samples, level).to(self.vertex_map.weight.device)
            motion = self.animate(self.features(wave[None], None, frames), face_only=face_only)
        finally:
            self.train(was_training)
        return LipMotion(vertices=motion.vertices[0], angles=None if motion.angles is None else motion.angles[0])

    def to_bfloat16(self) -> "SelfTalk":
        """Predicts with the encoder in bfloat16 from now on; one way, see `SpeechEncoder.to_bfloat16`.

        The animator's own layers stay in float32: they take a few hundredths of the time, and millimetres are made
        there. How far vertices move depends on the weights: `ecavatar.animation.lips` measures it.
        """
        self.encoder.to_bfloat16()
        return self.eval()

    def predict(
        self, samples: Float[Tensor, " samples"], template: Float[Tensor, "vertices 3"], frames: int
    ) -> LipMotion:
        """The lip-synchronised motion M_lip of one clip, on the network's device, with dropout off.

        Args:
            samples: 16 kHz mono, any loudness; brought to the encoder's level here.
            template: the speaker's neutral closed-mouth face, metres; for a network that regresses the mouth also face
                and mouth (see `MouthFit.closed`). The result has the template's vertices.
            frames: how many frames to make of it, usually seconds times frames a second.

        Raises:
            ShapeError: the template has another number of vertices, or there are no samples or frames.
        """
        sizes = (self.n_vertices, self.n_vertices + self.n_mouth)
        if template.ndim != 2 or template.shape[-1] != 3 or len(template) not in sizes:
            raise ShapeError(
                f"template: expected {' or '.join(f'({size}, 3)' for size in sorted(set(sizes)))}, got "
                f"{tuple(template.shape)}. Give a face of the topology that the network was trained on."
            )
        motion = self.offsets(samples, frames, face_only=len(template) == self.n_vertices)
        return LipMotion(vertices=template.to(motion.vertices) + motion.vertices, angles=motion.angles)


class LipReadingInterpreter(nn.Module):
    """Reads letters off the lips: what SelfTalk trains against, and nothing that prediction needs.

    Lip offsets -> linear -> linear interpolation to the recogniser's steps -> transformer (source = target) -> letters.
    """

    def __init__(
        self,
        *,
        n_lips: int,
        width: int,
        vocabulary: int,
        layers: int,
        heads: int,
        ffn: int,
        dropout: float,
        scale_m: float,
    ) -> None:
        """Builds the network with random weights.

        Args:
            n_lips: lip vertices.
            width: features a step, equal to the recogniser's so that the two can be compared.
            vocabulary: letter scores, the recogniser's.
            layers: encoder layers, and as many decoder layers.
            heads: attention heads; must divide `width`.
            ffn: width of the feed-forward parts.
            dropout: of the transformer.
            scale_m: offsets are divided by it, so that they enter at the size at which the animator computes them.

        Raises:
            DataError: `heads` does not divide `width`.
        """
        super().__init__()
        if width % heads:
            raise DataError(f"the recogniser's width {width} must be a multiple of interpreter_heads {heads}.")
        self._arguments = {
            "n_lips": n_lips, "width": width, "vocabulary": vocabulary, "layers": layers, "heads": heads, "ffn": ffn,
            "dropout": dropout, "scale_m": scale_m,
        }  # fmt: skip
        self.scale_m = scale_m
        self.lip_map = nn.Linear(n_lips * 3, width)
        self.transformer = nn.Transformer(width, heads, layers, layers, ffn, dropout, batch_first=True)
        self.lm_head = nn.Linear(width, vocabulary)

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, as json values."""
        return dict(self._arguments)

    def forward(
        self, lips: Float[Tensor, "clips frames lips 3"], frames: Sequence[int], steps: Sequence[int]
    ) -> tuple[Float[Tensor, "clips steps width"], Float[Tensor, "clips steps letters"]]:
        """Interpreter features and letter scores, padded to the longest clip's steps.

        Args:
            lips: offsets of the lip vertices from the template, metres.
            frames: frames of each clip without padding.
            steps: recogniser steps (50 a second) of each clip.
        """
        mapped = self.lip_map(lips.flatten(2) / self.scale_m).transpose(1, 2)
        resized = [
            functional.interpolate(clip[None, :, :count], size=target, mode="linear", align_corners=True)[0].T
            for clip, count, target in zip(mapped, frames, steps, strict=True)
        ]
        x = nn.utils.rnn.pad_sequence(resized, batch_first=True)
        mask = padding_mask(steps, x.device)
        hidden = self.transformer(
            x, x, src_key_padding_mask=mask, tgt_key_padding_mask=mask, memory_key_padding_mask=mask
        )
        return hidden, self.lm_head(hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """What the frozen recogniser says about a padded batch of clips."""

    hidden: Float[Tensor, "clips steps width"]
    steps: Sequence[int]
    """Steps of each clip without padding."""
    tokens: Int[Tensor, " total"]
    """Transcripts, one after the other."""
    token_counts: Int[Tensor, " clips"]
    """Tokens of each transcript; 0 where nothing was understood."""
    blank: int


def padding_mask(counts: Sequence[int], device: torch.device) -> Bool[Tensor, "clips longest"] | None:
    """True after the end of each clip; None when all are of one length."""
    if len(set(counts)) == 1:
        return None
    ends = torch.tensor(list(counts), device=device)
    return torch.arange(max(counts), device=device)[None] >= ends[:, None]


def motion_losses(predicted: LipMotion, truth: LipMotion, frames: Sequence[int]) -> dict[str, Float[Tensor, ""]]:
    """Mean squared errors of a padded batch, each averaged over the valid frames: unweighted.

    Args:
        predicted: offsets and angles from `SelfTalk.animate`.
        truth: offsets and angles of the same shape.
        frames: frames of each clip without padding.

    Returns:
        `reconstruction` and `velocity` in m^2 (velocity: differences between neighbouring frames; 0 for clips of one
        frame), and `angle` in rad^2 where angles are predicted.

    Raises:
        ShapeError: other vertices, or the truth has no angles where the prediction has.
    """
    if predicted.vertices.shape != truth.vertices.shape or (predicted.angles is not None and truth.angles is None):
        raise ShapeError(
            f"predicted {tuple(predicted.vertices.shape)}, truth {tuple(truth.vertices.shape)}: expected the same, "
            "with angles where they are predicted. Join face and mouth for a network that regresses the mouth."
        )
    error = predicted.vertices - truth.vertices
    mask = padding_mask(frames, error.device)
    valid = error.new_ones(error.shape[:2]) if mask is None else (~mask).to(error)
    between = valid[:, 1:]  # a frame's predecessor is valid whenever the frame is
    losses = {
        "reconstruction": _masked_mean(error.square().mean(dim=(2, 3)), valid),
        "velocity": _masked_mean((error[:, 1:] - error[:, :-1]).square().mean(dim=(2, 3)), between),
    }
    if predicted.angles is not None and truth.angles is not None:
        losses["angle"] = _masked_mean((predicted.angles - truth.angles).square(), valid)
    return losses


def reading_losses(
    hidden: Float[Tensor, "clips steps width"], logits: Float[Tensor, "clips steps letters"], teacher: Teacher
) -> dict[str, Float[Tensor, ""]]:
    """Distance between the interpreter and the recogniser: `latent` (mean squared) and `text` (CTC), unweighted.

    A clip whose transcript is empty has no text loss: with no target, CTC would only reward blanks. Neither has one
    whose transcript is longer than CTC can align with its steps.
    """
    mask = padding_mask(teacher.steps, hidden.device)
    valid = torch.ones_like(hidden[..., 0]) if mask is None else (~mask).to(hidden)
    latent = _masked_mean((hidden - teacher.hidden).square().mean(dim=2), valid)
    per_clip = functional.ctc_loss(
        logits.float().log_softmax(dim=-1).transpose(0, 1),
        teacher.tokens,
        torch.tensor(list(teacher.steps)),
        teacher.token_counts.cpu(),
        blank=teacher.blank,
        reduction="none",
        zero_infinity=True,
    )
    has_text = (teacher.token_counts > 0).to(per_clip)
    per_token = per_clip / teacher.token_counts.to(per_clip).clamp(min=1)
    return {"latent": latent, "text": _masked_mean(per_token, has_text)}


def _masked_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1)


def _zero_linear(width: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(width, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


_NOT_SIZES = ("transformers_version", "architectures", "torch_dtype", "dtype", "_name_or_path")


def _speech_model(config: Mapping[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel  # seconds to import

    if config.get("model_type") not in ("hubert", "wav2vec2", "wavlm"):
        raise DataError(f"expected the configuration of a HuBERT or wav2vec2 model, got {config.get('model_type')!r}.")
    return AutoModel.from_config(AutoConfig.for_model(**config))
