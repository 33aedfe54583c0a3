"""A frozen CTC speech recogniser: hidden states, letter scores and transcripts of a clip."""

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from ecavatar.errors import AssetMissingError, DataError, ShapeError
from ecavatar.speech.encoder import count_steps, prepare_samples, shortest_clip
from ecavatar.speech.pretrained import open_pretrained


class CtcRecogniser(nn.Module):
    """HuBERT or wav2vec2 with a CTC head, always in evaluation mode and never trained.

    SelfTalk's teacher: its last hidden states and its own greedy transcript supervise the lip-reading branch, so
    dropout must stay off in it even while the student trains.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, normalises: bool = True) -> None:
        """Wraps a transformers `HubertForCTC`, `Wav2Vec2ForCTC` or `WavLMForCTC` and its letter tokenizer.

        Args:
            model: the network.
            tokenizer: its letters; their padding is CTC's blank.
            normalises: the model's processor brings clips to mean 0 and variance 1.

        Raises:
            DataError: the letters do not fit the network's scores.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.config: Any = model.config
        self.tokenizer = tokenizer
        self.normalises = normalises
        blank = tokenizer.pad_token_id
        if blank is None or blank >= self.config.vocab_size:
            raise DataError(
                f"the tokenizer's blank (its padding) is {blank}, but the network scores {self.config.vocab_size} "
                "letters; they belong to different models. Download both again."
            )

    @classmethod
    def load(cls, source: str | Path) -> "CtcRecogniser":
        """The recogniser in a transformers directory or under a hub id.

        Raises:
            AssetMissingError: nothing usable at `source`, or no letters (vocab.json) there.
            DataError: another kind of model, one without a CTC head, or incomplete.
        """
        from transformers import Wav2Vec2CTCTokenizer  # seconds to import; the one tokenizer of all three families

        opened = open_pretrained(source, "speech recogniser", with_letters=True)
        if not (opened.directory / "vocab.json").is_file():
            raise AssetMissingError(
                f"speech recogniser: {opened.directory} has no vocab.json, so its letters are unknown. Expected a "
                "model fine-tuned with CTC, such as facebook/hubert-large-ls960-ft."
            )
        try:
            tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(opened.directory, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"letters of the speech recogniser in {opened.directory} cannot be read ({error}). Download vocab.json "
                "and tokenizer_config.json again."
            ) from error
        return cls(opened.model, tokenizer, normalises=opened.normalises)

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

    @property
    def shortest(self) -> int:
        """Samples that one step needs: 400 for the published models."""
        return shortest_clip(self.config.conv_kernel, self.config.conv_stride)

    def steps(self, samples: int) -> int:
        """Steps, 50 a second, of a clip of so many samples."""
        return count_steps(samples, self.config.conv_kernel, self.config.conv_stride)

    def prepare(self, samples: NDArray[np.floating] | Float[Tensor, " samples"]) -> Float[Tensor, " prepared"]:
        """One clip as the recogniser expects it; see `encoder.prepare_samples`."""
        return prepare_samples(samples, normalises=self.normalises, shortest=self.shortest)

    @torch.no_grad()
    def hidden_and_logits(
        self, samples: Float[Tensor, "1 samples"]
    ) -> tuple[Float[Tensor, "1 steps width"], Float[Tensor, "1 steps letters"]]:
        """Last hidden states and letter scores of one clip, 50 a second.

        Args:
            samples: 16 kHz mono, from `prepare`.

        Raises:
            ShapeError: not one clip, or shorter than one step (400 samples for the published models).
        """
        if samples.ndim != 2 or samples.shape[0] != 1 or samples.shape[1] < self.shortest:
            raise ShapeError(
                f"expected one clip (1, samples) of at least {self.shortest} samples, got {tuple(samples.shape)}. "
                "Use `prepare`."
            )
        hidden = self.model.base_model(samples).last_hidden_state
        return hidden, self.model.lm_head(hidden)

    def transcribe(self, samples: NDArray[np.floating]) -> str:
        """The greedy transcript of `samples` (N,), 16 kHz mono of any loudness."""
        device = next(self.model.parameters()).device
        _, logits = self.hidden_and_logits(self.prepare(samples)[None].to(device))
        return self.greedy_text(logits)

    def greedy_text(self, logits: Float[Tensor, "1 steps letters"]) -> str:
        """The text of the best letter of each step: repeats merged; blanks, starts, ends and unknowns dropped."""
        letterless = {self.blank, *(getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk"))}
        merged = [token for token, _ in groupby(logits[0].argmax(dim=-1).tolist()) if token not in letterless]
        return self.tokenizer.decode(merged, group_tokens=False).strip()

    def tokens(self, text: str) -> Int[Tensor, " tokens"]:
        """Token ids of a transcript, int64; in the case the vocabulary uses, and without characters it lacks.

        Punctuation goes, words stay apart; a text with nothing left has no tokens.
        """
        vocabulary = self.tokenizer.get_vocab()
        cased = text.upper() if "E" in vocabulary else text.lower()
        known = "".join(letter if letter in vocabulary else " " if letter.isspace() or letter in "-–—/" else ""
                        for letter in cased)  # fmt: skip
        words = " ".join(known.split())
        return torch.tensor(self.tokenizer(words).input_ids if words else [], dtype=torch.long)
