"""A frozen CTC speech recogniser: hidden states, letter scores and transcripts of a clip."""

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ecavatar.errors import ShapeError
from ecavatar.speech.audio import normalise
from ecavatar.speech.encoder import shortest_clip
from ecavatar.speech.pretrained import from_pretrained


class CtcRecogniser(nn.Module):
    """HuBERT or wav2vec2 with a CTC head, always in evaluation mode and never trained.

    SelfTalk's teacher: its last hidden states and its own greedy transcript supervise the lip-reading branch, so
    dropout must stay off in it even while the student trains.
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        """Wraps a transformers `HubertForCTC` or `Wav2Vec2ForCTC` and its letter tokenizer."""
        super().__init__()
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.config: Any = model.config
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, source: str | Path) -> "CtcRecogniser":
        """The recogniser in a transformers directory or under a hub id.

        Raises:
            AssetMissingError: nothing usable at `source`.
        """
        from transformers import AutoModelForCTC, AutoTokenizer  # seconds to import

        model = from_pretrained(AutoModelForCTC.from_pretrained, source, "speech recogniser")
        return cls(model, from_pretrained(AutoTokenizer.from_pretrained, source, "letters of the speech recogniser"))

    def train(self, mode: bool = True) -> "CtcRecogniser":
        """Keeps evaluation mode whatever a surrounding module asks for."""
        del mode
        return super().train(mode=False)

    @property
    def blank(self) -> int:
        """Token id of CTC's blank: the tokenizer's padding."""
        return self.tokenizer.pad_token_id

    @property
    def width(self) -> int:
        """Features per 20 ms of the hidden states."""
        return self.config.hidden_size

    @property
    def vocabulary_size(self) -> int:
        """Number of letter scores (32 for LibriSpeech models)."""
        return self.config.vocab_size

    @torch.no_grad()
    def hidden_and_logits(
        self, samples: Float[Tensor, "1 samples"]
    ) -> tuple[Float[Tensor, "1 steps width"], Float[Tensor, "1 steps letters"]]:
        """Last hidden states and letter scores of one clip, 50 a second.

        Args:
            samples: 16 kHz mono, normalised to mean 0 and variance 1.

        Raises:
            ShapeError: not one clip, or shorter than one step (400 samples for the published models).
        """
        shortest = shortest_clip(self.model.config.conv_kernel, self.model.config.conv_stride)
        if samples.ndim != 2 or samples.shape[0] != 1 or samples.shape[1] < shortest:
            raise ShapeError(
                f"expected one clip (1, samples) of at least {shortest} samples, got {tuple(samples.shape)}."
            )
        hidden = self.model.base_model(samples).last_hidden_state
        return hidden, self.model.lm_head(hidden)

    def transcribe(self, samples: NDArray[np.floating]) -> str:
        """The greedy transcript of `samples` (N,), 16 kHz mono of any loudness."""
        device = next(self.model.parameters()).device
        _, logits = self.hidden_and_logits(torch.from_numpy(normalise(samples))[None].to(device))
        return self.greedy_text(logits)

    def greedy_text(self, logits: Float[Tensor, "1 steps letters"]) -> str:
        """The text of the best letter of each step: repeats merged, blanks dropped."""
        merged = [token for token, _ in groupby(logits[0].argmax(dim=-1).tolist()) if token != self.blank]
        return self.tokenizer.decode(merged, group_tokens=False).strip()

    def tokens(self, text: str) -> Tensor:
        """Token ids of `text`, (L,) int64; written in the case the vocabulary uses."""
        cased = text.upper() if "E" in self.tokenizer.get_vocab() else text.lower()
        return torch.tensor(self.tokenizer(cased).input_ids, dtype=torch.long)
