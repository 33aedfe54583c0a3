"""Both networks trained end to end on a tiny world."""

import csv
import shutil

import pytest
import torch

from ecavatar.config import FuNetSettings
from ecavatar.errors import DataError
from ecavatar.face.model import FaceModel
from ecavatar.face.regions import fusion_regions
from ecavatar.models.funet import FuNet, blend
from ecavatar.models.selftalk import LipReadingInterpreter, SelfTalk
from ecavatar.speech.encoder import SpeechEncoder
from ecavatar.speech.recogniser import CtcRecogniser
from ecavatar.storage.parquet import read_table, table_metadata, write_table
from ecavatar.training.funet import FuNetSources, fit_funet, funet_objective, load_mesh_pairs
from ecavatar.training.loop import seeded_torch
from ecavatar.training.pairs import FacePool, read_pairs
from ecavatar.training.selftalk import SelfTalkSources, collate, fit_selftalk, load_clips, selftalk_objective
from ecavatar.training.weights import load_weights
from ecavatar.vocateeth.dataset import VocaTeeth


def selftalk_sources(world):
    return SelfTalkSources(face_model=world / "face.npz", vocateeth=world / "vocateeth", hubert=world / "hubert")


def funet_sources(world):
    return FuNetSources(
        face_model=world / "face.npz", vocateeth=world / "vocateeth", pool=world / "pool", pairs=world / "pairs"
    )


def rows_of(curve):
    with curve.open() as file:
        return list(csv.DictReader(file))


def objective_of(world, small_face, settings, frozen="all"):
    teeth = VocaTeeth.open(world / "vocateeth")
    with seeded_torch(0, "test"):
        return selftalk_objective(
            load_clips(teeth, "train"),
            load_clips(teeth, "val"),
            SpeechEncoder.load(world / "hubert", frozen=frozen),
            CtcRecogniser.load(world / "hubert"),
            small_face.regions["lips"],
            settings,
        )


def test_selftalk_is_trained_saved_and_predicts_alike_on_every_run(tmp_path, world, small_face, selftalk_settings):
    figures = []
    for name in ("a", "b"):
        where = {"out": tmp_path / name, "curve": tmp_path / f"{name}.csv", "checkpoint": tmp_path / f"{name}.pt"}
        figures.append(fit_selftalk(selftalk_sources(world), selftalk_settings, 7, **where))
    for file in ("model.safetensors", "model.json", "interpreter.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert not (tmp_path / "a.pt").exists()
    assert set(figures[0]) >= {"val_lve_m2", "neutral_lve_m2", "train_mean_lve_m2", "val_angle_error_deg"}
    model, facts = load_weights(tmp_path / "a", SelfTalk)
    assert (facts["topology"], facts["fps"]) == ("small", 30)
    load_weights(tmp_path / "a", LipReadingInterpreter, stem="interpreter")
    template = torch.from_numpy(small_face.template.copy())
    motion = model.predict(torch.randn(8000), template, 15)
    assert motion.vertices.shape == (15, small_face.n_vertices, 3)
    assert motion.vertices.isfinite().all()


def test_prediction_runs_neither_interpreter_nor_recogniser(
    tmp_path, world, small_face, selftalk_settings, monkeypatch
):
    where = {"out": tmp_path / "w", "curve": tmp_path / "c.csv", "checkpoint": tmp_path / "c.pt"}
    fit_selftalk(selftalk_sources(world), selftalk_settings, 7, **where)

    def forbidden(*_args, **_kwargs):
        raise AssertionError("prediction must not need it")

    for cls in (LipReadingInterpreter, CtcRecogniser):
        monkeypatch.setattr(cls, "__init__", forbidden)
        monkeypatch.setattr(cls, "__call__", forbidden)
    model, _ = load_weights(tmp_path / "w", SelfTalk)
    model.predict(torch.randn(8000), torch.from_numpy(small_face.template.copy()), 15)


def test_a_batch_of_clips_weighs_frames_like_the_clips_alone(world, small_face, selftalk_settings):
    objective = objective_of(world, small_face, selftalk_settings)
    torch.nn.init.normal_(objective.module.animator.vertex_map.weight)
    objective.module.eval()
    clips = [objective.clips[0], objective.clips[1]]
    together = objective.module(collate(clips, objective.blank, torch.device("cpu")))
    alone = [objective.module(collate([clip], objective.blank, torch.device("cpu"))) for clip in clips]
    frames = [len(clip.offsets) for clip in clips]
    assert frames[0] != frames[1]
    expected = sum(a["reconstruction"] * n for a, n in zip(alone, frames, strict=True)) / sum(frames)
    torch.testing.assert_close(together["reconstruction"], expected, rtol=1e-4, atol=0)


def test_every_loss_reaches_the_animator_and_none_the_teacher(world, small_face, selftalk_settings, monkeypatch):
    monkeypatch.setattr(CtcRecogniser, "greedy_text", lambda *_: "TEA")  # an untrained one hears nothing
    objective = objective_of(world, small_face, selftalk_settings)
    torch.nn.init.normal_(objective.module.animator.vertex_map.weight)
    batch = objective.batch([0, 1], torch.device("cpu"))
    for name in ("reconstruction", "velocity", "latent", "text"):
        objective.module.zero_grad()
        objective.module(batch)[name].backward()
        assert objective.module.animator.audio_feature_map.weight.grad.abs().max() > 0, name
    assert not any("recogniser" in name for name, _ in objective.module.named_parameters())
    assert not batch.teacher.hidden.requires_grad


def test_an_unfrozen_encoder_is_trained(world, small_face, selftalk_settings):
    objective = objective_of(world, small_face, selftalk_settings, frozen="conv")
    torch.nn.init.normal_(objective.module.animator.vertex_map.weight)
    batch = objective.batch([0, 1, 2], torch.device("cpu"))
    assert batch.features is None
    objective.module(batch)["loss"].backward()
    encoder = objective.module.animator.encoder.model
    assert encoder.feature_projection.projection.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in encoder.feature_extractor.parameters())


def test_a_transcript_that_is_empty_everywhere_still_trains(tmp_path, world, selftalk_settings, monkeypatch):
    monkeypatch.setattr(CtcRecogniser, "greedy_text", lambda *_: "")
    where = {"out": tmp_path / "w", "curve": tmp_path / "c.csv", "checkpoint": tmp_path / "c.pt"}
    fit_selftalk(selftalk_sources(world), selftalk_settings, 7, **where)
    rows = rows_of(tmp_path / "c.csv")
    assert {float(row["train_text"]) for row in rows[1:]} == {0.0}


def test_baselines_are_the_errors_of_standing_still_and_of_the_mean_motion(world, small_face, selftalk_settings):
    objective = objective_of(world, small_face, selftalk_settings)
    lips = small_face.regions["lips"].tolist()
    mean = torch.cat([clip.offsets for clip in objective.clips]).mean(dim=0)
    for name, guess in (("neutral_lve_m2", torch.zeros_like(mean)), ("train_mean_lve_m2", mean)):
        errors = [(guess - clip.offsets)[:, lips].square().sum(-1).amax(-1) for clip in objective.validation]
        assert objective.baselines[name] == pytest.approx(torch.cat(errors).mean().item(), rel=1e-5)
    untrained = objective.module.eval()
    assert untrained is objective.module
    with torch.no_grad():
        assert objective.validate(torch.device("cpu"))["val_lve_m2"] == pytest.approx(
            objective.baselines["neutral_lve_m2"]
        )


def test_funet_is_trained_towards_the_closed_form_and_saved(tmp_path, world, funet_settings):
    where = {"out": tmp_path / "w", "curve": tmp_path / "c.csv", "checkpoint": tmp_path / "c.pt"}
    longer = funet_settings.model_copy(
        update={"training": funet_settings.training.model_copy(update={"epochs": 60, "validate_every": 20})}
    )
    figures = fit_funet(funet_sources(world), longer, 7, **where)
    rows = rows_of(tmp_path / "c.csv")
    assert float(rows[-1]["train_loss"]) < 0.5 * float(rows[1]["train_loss"])
    assert figures["val_lips_from_blend_mean_mm"] < figures["val_lips_from_blend_max_mm"]
    model, facts = load_weights(tmp_path / "w", FuNet)
    assert facts["basis"] == "small"
    assert not torch.equal(model.lip_mean, torch.zeros_like(model.lip_mean))


@pytest.mark.parametrize("changes", [{"normalise": False}, {"residual": "lip"}, {"reduction": "sum", "terms": ["lip"]}])
def test_funets_options_train(tmp_path, world, funet_settings: FuNetSettings, changes):
    where = {"out": tmp_path / "w", "curve": tmp_path / "c.csv", "checkpoint": tmp_path / "c.pt"}
    fit_funet(funet_sources(world), funet_settings.model_copy(update=changes), 7, **where)


def test_pairs_become_the_meshes_they_name(world, small_face, funet_settings):
    teeth, pool = VocaTeeth.open(world / "vocateeth"), FacePool.open(world / "pool")
    pairs, model = read_pairs(world / "pairs", teeth), FaceModel(small_face)
    meshes = load_mesh_pairs(teeth, pool, pairs["train"], model)
    lip, emotional = meshes.meshes([4, 7], torch.device("cpu"))
    clip = next(clip for clip in teeth.clips if clip.clip_id == pairs["train"].clip_ids[7])
    assert torch.equal(lip[1], torch.from_numpy(teeth.vertices(clip)[pairs["train"].frames[7]].copy()))
    row = pool.item_ids.index(pairs["train"].item_ids[7])
    one = [torch.from_numpy(getattr(pool, name)[row : row + 1].copy()) for name in ("shape", "expression", "jaw_pose")]
    torch.testing.assert_close(emotional[1:], model(*one))
    objective = funet_objective(meshes, meshes, funet_settings)
    assert torch.equal(objective.target(lip, emotional), blend(lip, emotional, fusion_regions(small_face)))


def test_a_broken_mesh_stops_funet_and_is_named(tmp_path, world, small_face, funet_settings):
    teeth, pool = VocaTeeth.open(world / "vocateeth"), FacePool.open(world / "pool")
    pairs = read_pairs(world / "pairs", teeth)
    meshes = load_mesh_pairs(teeth, pool, pairs["train"], FaceModel(small_face))
    meshes.lips[3] = float("nan")
    with pytest.raises(DataError, match="metres"):
        funet_objective(meshes, meshes, funet_settings)


def test_pairs_of_faces_that_are_gone_are_refused(tmp_path, world, funet_settings):
    smaller = tmp_path / "pool"
    shutil.copytree(world / "pool", smaller)
    (part,) = smaller.iterdir()
    write_table(part, read_table(part).slice(3), table_metadata(part))
    sources = FuNetSources(
        face_model=world / "face.npz", vocateeth=world / "vocateeth", pool=smaller, pairs=world / "pairs"
    )
    where = {"out": tmp_path / "w", "curve": tmp_path / "c.csv", "checkpoint": tmp_path / "c.pt"}
    with pytest.raises(DataError, match="not in the pool"):
        fit_funet(sources, funet_settings, 7, **where)
    assert not (tmp_path / "w").exists()
