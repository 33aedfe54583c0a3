"""SelfTalk with a rigged and with a regressed mouth: what both learn from, and how they are compared."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from ecavatar.errors import DataError
from ecavatar.models.selftalk import SelfTalk
from ecavatar.mouth.fit import MouthFit, pose_mouth
from ecavatar.speech.encoder import SpeechEncoder
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.training.loop import seeded_torch
from ecavatar.training.selftalk import (
    SelfTalkSources,
    collate,
    fit_selftalk,
    load_clips,
    read_transcripts,
    selftalk_objective,
    teach,
)
from ecavatar.training.selftalk_mouths import MouthComparison, compare_mouths, teeth_residuals
from ecavatar.training.weights import load_weights
from ecavatar.vocateeth.dataset import VocaTeeth
from ecavatar.vocateeth.windows import SubjectMouths
from tests.fabricate_mouth import small_mouth

CPU = torch.device("cpu")


def sources(world, **more):
    return SelfTalkSources(
        face_model=world / "face.npz", vocateeth=world / "vocateeth", hubert=world / "hubert", **more
    )


def tokens_of(clip):
    return clip.tokens.tolist()


def objective(world, small_face, settings, mouth):
    teeth = VocaTeeth.open(world / "vocateeth")
    with seeded_torch(0, "test"):
        return teeth, selftalk_objective(
            load_clips(teeth, "train"), load_clips(teeth, "val"), SpeechEncoder.load(world / "hubert", frozen="all"),
            CtcRecogniser.load(world / "hubert"), small_face.regions["lips"], settings, SubjectMouths(teeth), mouth,
        )  # fmt: skip


def test_a_regressed_mouth_learns_the_joined_heads_of_vocateeth(world, small_face, selftalk_settings):
    teeth, task = objective(world, small_face, selftalk_settings, "regressed")
    batch = task.batch([0], CPU)
    truth = task.module._truth(batch).vertices[0].numpy()
    clip = next(clip for clip in teeth.clips if clip.clip_id == task.clips[0].clip_id)
    rest = teeth.joined(clip.subject, teeth.templates()[clip.subject][None], np.zeros(1, np.float32))[0]
    np.testing.assert_allclose(truth, teeth.heads(clip) - rest, atol=1e-7)
    assert set(task.module(batch)) == {"reconstruction", "velocity", "latent", "text", "loss"}


def test_a_rigged_mouth_is_not_joined(world, small_face, selftalk_settings):
    _, task = objective(world, small_face, selftalk_settings, "rigged")
    assert task.module._truth(task.batch([0], CPU)) is not None
    assert task.module.mouths is None
    assert task.module.animator.n_mouth == 0


@pytest.mark.parametrize("mouth", ["rigged", "regressed"])
def test_a_batch_is_the_weighted_mean_of_its_clips(world, small_face, selftalk_settings, mouth, monkeypatch):
    """What accumulation and several processes rely on: losses of parts, by their weights, are those of the whole."""
    texts = iter(["TEA", "", "A", "EAT"] * 9)
    monkeypatch.setattr(CtcRecogniser, "greedy_text", lambda *_: next(texts))
    _, task = objective(world, small_face, selftalk_settings, mouth)
    torch.nn.init.normal_(task.module.animator.vertex_map.weight)
    task.module.eval()
    items = [0, 1, 2]
    assert len({task.lengths()[item] for item in items}) > 1
    whole = task.module(task.batch(items, CPU))
    parts, weights = [task.module(task.batch([item], CPU)) for item in items], [task.weight([item]) for item in items]
    assert 0.0 in [weight["text"] for weight in weights]
    mean = {}
    for name in [name for name in whole if name != "loss"]:
        sums = sum(weight[name] for weight in weights)
        assert task.weight(items)[name] == sums
        mean[name] = sum(part[name] * weight[name] / sums for part, weight in zip(parts, weights, strict=True))
        torch.testing.assert_close(mean[name], whole[name], rtol=1e-4, atol=0)
    torch.testing.assert_close(task.total(mean), whole["loss"], rtol=1e-4, atol=0)


def test_a_regressed_mouth_needs_mouths(world, small_face, selftalk_settings):
    teeth = VocaTeeth.open(world / "vocateeth")
    clips = load_clips(teeth, "train")
    with pytest.raises(DataError, match="regressed"):
        selftalk_objective(
            clips, clips, SpeechEncoder.load(world / "hubert"), CtcRecogniser.load(world / "hubert"),
            small_face.regions["lips"], selftalk_settings, None, "regressed",
        )  # fmt: skip


def test_both_mouths_are_trained_and_compared(tmp_path, world, selftalk_settings):
    found = compare_mouths(sources(world), selftalk_settings, 7, tmp_path)
    table = found.mouths
    assert list(table.index) == ["rigged", "regressed"]
    assert table.loc["rigged", "teeth_residual_max_mm"] < 1e-3, "a rigged jaw is rigid by construction"
    assert table.loc["regressed", "teeth_residual_mm"] > 1e-3
    assert (table > 0).all(axis=None)
    network, facts = load_weights(tmp_path / "regressed", SelfTalk)
    assert network.n_mouth == facts["mouth"]["vertices"] == len(small_mouth().vertices)


def test_the_rule_prefers_rigid_teeth_among_equal_lips_and_speed_among_equal_teeth():
    def comparison(**rows):
        columns = ["lve_m2", "teeth_residual_mm", "seconds_per_clip"]
        return MouthComparison(mouths=pd.DataFrame.from_dict(rows, orient="index", columns=columns), clips=1)

    assert comparison(rigged=(1.01, 1e-5, 2.0), regressed=(1.0, 0.2, 1.0)).recommended == "rigged"
    assert comparison(rigged=(1.03, 1e-5, 1.0), regressed=(1.0, 0.2, 2.0)).recommended == "regressed"
    assert comparison(rigged=(1.0, 1e-5, 2.0), regressed=(1.0, 2e-5, 1.0)).recommended == "regressed"


def test_teeth_residuals_see_bending_and_nothing_rigid():
    mouth, fit = small_mouth(), MouthFit(
        scale=1.0, rotation=np.eye(3), translation=np.zeros(3), axis=np.eye(3)[0], pivot=np.array([0, 0, -0.08])
    )  # fmt: skip
    closed = fit.closed(mouth)
    opened = pose_mouth(mouth, fit, np.array([0.0, 0.1, 0.3]))
    assert teeth_residuals(opened, closed, mouth).max() < 1e-7
    bent = opened.copy()
    bent[1, :, 1] += 20 * bent[1, :, 0] ** 2
    residuals = teeth_residuals(bent, closed, mouth)
    assert residuals[1] > 1e-3
    assert residuals[[0, 2]].max() < 1e-7


def test_a_corpus_own_transcript_goes_before_the_recognisers(tmp_path, world, selftalk_settings):
    teeth, recogniser = VocaTeeth.open(world / "vocateeth"), CtcRecogniser.load(world / "hubert")
    first = teeth.of_split("train")[0].clip_id
    path = tmp_path / "said.json"
    path.write_text(json.dumps({first: "A tea, eat!", "another": "E"}))
    clips = load_clips(teeth, "train", read_transcripts(path))
    teach(clips, recogniser)
    assert tokens_of(clips[0]) == recogniser.tokens("A TEA EAT").tolist()
    for clip in clips[1:]:
        _, logits = recogniser.hidden_and_logits(recogniser.prepare(clip.samples)[None])
        assert tokens_of(clip) == recogniser.tokens(recogniser.greedy_text(logits)).tolist()
    where = {"out": tmp_path / "w", "curve": tmp_path / "c.csv", "checkpoint": tmp_path / "c.pt"}
    fit_selftalk(sources(world, transcripts=path), selftalk_settings, 7, **where)
    path.write_text('["tea"]')
    with pytest.raises(DataError, match="clip id"):
        read_transcripts(path)


def test_clips_go_into_a_batch_only_when_prepared(world):
    teeth = VocaTeeth.open(world / "vocateeth")
    clips = load_clips(teeth, "train")
    with pytest.raises(DataError, match="teach"):
        collate(clips, 0, CPU)
    teach(clips, CtcRecogniser.load(world / "hubert"))
    with pytest.raises(DataError, match="prepare"):
        collate(clips, 0, CPU)


def test_training_learns_the_same_whatever_the_recordings_gain(tmp_path, world, selftalk_settings):
    encoder, recogniser = SpeechEncoder.load(world / "hubert", frozen="all"), CtcRecogniser.load(world / "hubert")
    teeth = VocaTeeth.open(world / "vocateeth")
    loud, quiet = load_clips(teeth, "train"), load_clips(teeth, "train")
    for clip in quiet:
        clip.samples = clip.samples * 0.25
    for clips in (loud, quiet):
        teach(clips, recogniser)
    torch.testing.assert_close(loud[0].hidden, quiet[0].hidden, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(encoder.prepare(loud[0].samples), encoder.prepare(quiet[0].samples), atol=2e-3, rtol=0)
