"""SelfTalk's batches can be split: its weights say what each of its losses is a mean over."""

import pytest

from ecavatar.speech.encoder import SpeechEncoder
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.training.loop import seeded_torch, train
from ecavatar.training.selftalk import load_clips, selftalk_objective
from ecavatar.vocateeth.dataset import VocaTeeth


def test_selftalk_learns_alike_from_one_batch_and_from_its_clips_one_by_one(
    world, small_face, selftalk_settings, training_settings, tmp_path
):
    teeth = VocaTeeth.open(world / "vocateeth")
    rows = []
    for batch, accumulate in ((3, 1), (1, 3)):
        settings = training_settings.model_copy(update={"batch": batch, "accumulate": accumulate, "bucket": True})
        with seeded_torch(0, "weights"):
            objective = selftalk_objective(
                load_clips(teeth, "train"), load_clips(teeth, "val"), SpeechEncoder.load(world / "hubert", "all"),
                CtcRecogniser.load(world / "hubert"), small_face.regions["lips"],
                selftalk_settings.model_copy(update={"dropout": 0.0}),
            )  # fmt: skip
        assert len(set(objective.lengths())) > 1, "clips must differ in length"
        state = train(objective, settings, seed=1, data_hash="d", checkpoint=tmp_path / f"{batch}.pt")
        rows.append(state.rows)
    for expected, row in zip(*rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
