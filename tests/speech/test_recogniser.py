"""The recogniser writes down what it hears in its own letters, and never trains."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ecavatar.errors import DataError, ShapeError
from ecavatar.speech.recogniser import CtcRecogniser
from tests.fabricate_speech import FAMILIES, publish, speechlike, tiny

LOWER_CASE = ["<pad>", "<s>", "</s>", "<unk>", "|", "'", "-", *"abcdefghijklmnopqrstuvwxyz"]
"""xlsr-53-english has 33 letters in this order; here the last one does not fit into 32 scores."""


def opened(directory: Path, family: str = "hubert") -> CtcRecogniser:
    return CtcRecogniser.load(publish(directory, tiny(family, with_letters=True)))


def scores(recogniser: CtcRecogniser, tokens: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([tokens]), recogniser.vocabulary_size).float()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_recogniser_reads_its_letters_and_stays_in_evaluation(tmp_path: Path, family: str) -> None:
    recogniser = opened(tmp_path, family)
    assert recogniser.blank == 0
    assert recogniser.vocabulary_size == 32
    torch.nn.ModuleDict({"teacher": recogniser}).train()
    assert not any(part.training for part in recogniser.modules())
    samples = speechlike(8000, 2)[None]
    hidden, logits = recogniser.hidden_and_logits(samples)
    torch.testing.assert_close(logits, tiny(family, with_letters=True)(samples).logits, rtol=0, atol=0)
    assert hidden.shape == (1, recogniser.steps(8000), recogniser.width) == (1, 24, 16)
    assert not hidden.requires_grad


def test_greedy_text_merges_repeats_and_drops_what_is_no_letter(tmp_path: Path) -> None:
    recogniser = opened(tmp_path)
    path = []
    for token in recogniser.tokens("Look up, Bob!").tolist():
        path += [token, token, recogniser.blank]
    assert recogniser.greedy_text(scores(recogniser, path)) == "LOOK UP BOB"
    assert recogniser.greedy_text(scores(recogniser, [1, *path, 3, 2])) == "LOOK UP BOB"
    assert recogniser.greedy_text(scores(recogniser, 9 * [0])) == ""


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("It's  9 o'clock -- well-known.", "IT'S O'CLOCK WELL KNOWN"),
        ("  «Né?»  ", "N"),
        ("a\nb\tc", "A B C"),
    ],
)
def test_a_transcript_is_written_in_the_letters_there_are(tmp_path: Path, text: str, same_as: str) -> None:
    recogniser = opened(tmp_path)
    tokens = recogniser.tokens(text)
    assert tokens.dtype == torch.long
    assert tokens.tolist() == recogniser.tokens(same_as).tolist()
    assert recogniser.tokenizer.unk_token_id not in tokens
    path = [token for letter in tokens.tolist() for token in (letter, recogniser.blank)]
    assert recogniser.greedy_text(scores(recogniser, path)) == same_as


@pytest.mark.parametrize("text", ["", "  ", "123 ?!"])
def test_a_transcript_without_letters_has_no_tokens(tmp_path: Path, text: str) -> None:
    tokens = opened(tmp_path).tokens(text)
    assert (tokens.shape, tokens.dtype) == ((0,), torch.long)


def test_a_lower_case_vocabulary_is_met_in_its_case(tmp_path: Path) -> None:
    publish(tmp_path, tiny("wav2vec2", with_letters=True))
    (tmp_path / "vocab.json").write_text(json.dumps({letter: k for k, letter in enumerate(LOWER_CASE[:32])}))
    recogniser = CtcRecogniser.load(tmp_path)
    assert recogniser.tokens("Up-to DATE").tolist() == [LOWER_CASE.index(c) for c in "up-to|date"]


def test_letters_of_another_model_are_refused(tmp_path: Path) -> None:
    publish(tmp_path, tiny("hubert", with_letters=True))
    letters = ["x" * n for n in range(1, 41)] + ["<pad>", "<unk>", "<s>", "</s>", "|"]
    (tmp_path / "vocab.json").write_text(json.dumps({letter: k for k, letter in enumerate(letters)}))
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match="blank"):
        CtcRecogniser.load(tmp_path)


def test_transcribing_does_not_depend_on_loudness_and_takes_any_length(tmp_path: Path) -> None:
    recogniser = opened(tmp_path)
    samples = speechlike(8000, 4).numpy()
    assert recogniser.transcribe(0.01 * samples + 0.1) == recogniser.transcribe(samples)
    assert isinstance(recogniser.transcribe(np.zeros(1)), str)


@pytest.mark.parametrize("shape", [(399,), (1, 399), (2, 16000), (1, 1, 16000)])
def test_what_is_not_one_clip_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="one clip"):
        opened(tmp_path).hidden_and_logits(torch.zeros(shape))
