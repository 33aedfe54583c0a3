"""Profile `full` on small files in the licensed formats, up to a step of both networks' training."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from ecavatar.assets import add_asset, missing_for_full
from ecavatar.config import CorporaSettings
from ecavatar.emolib.dataset import read_emolib, read_info
from ecavatar.emolib.verify import verify
from ecavatar.face.model import FaceAsset
from ecavatar.reconstruction.emica.networks import variant_of_widths
from ecavatar.reconstruction.images import read_image
from ecavatar.rendering.video import write_video
from ecavatar.sample import affectnet
from ecavatar.sample.head import build_open_head
from ecavatar.sample.world import SampleWorld
from ecavatar.storage.files import read_json
from ecavatar.storage.parquet import read_table, vector_array
from ecavatar.storage.shards import read_shards
from flows._server import local_server
from tests.fabricate import write_hubert, write_vocaset
from tests.fabricate_emica import emica_tensors, write_lightning
from tests.fabricate_flame import (
    write_flame_landmarks,
    write_flame_masks,
    write_flame_mediapipe,
    write_flame_pickle,
    write_flame_uv,
)

ROOT = Path(__file__).resolve().parents[2]
BASIS = "flame2020"
SMALLER = {
    "select": {"per_level": 1, "pool": 6, "max_rejects": 0.5},
    "reconstruct": {"backend": "emica", "shards": 2, "max_rejects": 0.9},
    "export": {"vertices": "int16"},
    "selftalk": {"feature_dim": 16, "interpreter_layers": 1, "interpreter_heads": 2, "interpreter_ffn": 16},
    "pairs": {"train": 8, "validation": 2, "validation_faces": 0.3},
    "funet": {"channels": [2, 2, 2], "hidden": 4},
}
"""Sizes of full's sections; what is not named is as params.yaml has it."""
TRAINING = {"device": "cpu", "threads": 2, "epochs": 1, "batch": 8, "validate_every": 1, "checkpoint_every": 1}
STAGES = (
    ("emolib", "select_images"),
    ("emolib", "reconstruct_faces"),
    ("emolib", "export_emolib"),
    ("vocateeth", "rig_mouths"),
    ("selftalk", "train_selftalk"),
    ("funet", "pair_faces"),
    ("funet", "train_funet"),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/full of a place where all stages up to FuNet's training have run."""
    root = tmp_path_factory.mktemp("full")
    data = root / "data" / "full"
    (root / "params.yaml").write_text(yaml.safe_dump(_params(), sort_keys=False))
    _supply_assets(root / "downloads", data)
    _supply_corpora(data)
    lacking = {asset.kind for asset in missing_for_full(data)}
    assert lacking <= {"emotion2vec"}  # read by track_emotions, which is not run here
    with local_server() as api:
        for module, stage in STAGES:
            _run(root, api, f"flows.{module}", stage)
    return data


def test_every_category_and_level_that_has_images_is_in_emolib(full: Path) -> None:
    index = read_table(full / "selection" / "index.parquet").to_pandas()
    faces = read_emolib(full / "emolib").to_pandas()
    assert len(faces) == len(index) >= 16
    assert set(map(tuple, faces[["emotion", "level"]].to_numpy())) == set(
        map(tuple, index[["emotion", "level"]].to_numpy())
    )
    pool = read_shards(full / "faces" / "pool").to_pandas()
    assert len(pool)
    assert set(pool["source_id"]).isdisjoint(faces["source_id"])
    assert "neutral" not in set(pool["emotion"])


def test_the_release_says_what_made_it_and_passes_its_own_check(full: Path) -> None:
    info = read_info(full / "emolib")
    assert (info.topology, info.basis, info.backend) == ("flame", BASIS, "emica")
    assert (info.n_shape, info.n_expression) == (300, 100)
    assert verify(full / "emolib") == []
    faces = read_emolib(full / "emolib")
    assert np.ptp(vector_array(faces["shape"]), axis=0).max() > 0  # not one answer for all
    assert np.isfinite(vector_array(faces["light"])).all()
    assert faces["alignment_is_converged"].to_pylist() == [True] * faces.num_rows


def test_what_could_not_be_used_is_counted(full: Path) -> None:
    rejects = pd.read_parquet(full / "faces" / "rejects.parquet")
    assert set(rejects.columns) == {"item_id", "stage", "reason", "detail"}
    drawn = read_json(full / "selection" / "levels.json")
    assert drawn["annotated"] == _CORPUS.affectnet_images


def test_both_networks_were_trained_a_step(full: Path) -> None:
    for network in ("selftalk", "funet"):
        curve = pd.read_csv(full.parents[1] / "reports" / "full" / "training" / f"{network}.csv")
        assert curve["step"].tolist() == [0, curve["step"].max()]  # untrained, and after one epoch
        assert np.isfinite(curve.iloc[-1].to_numpy(np.float64)).all()
        assert any((full / "models" / network).glob("*.safetensors"))


# --- what a licensee would have --------------------------------------------------------------------------------------

_CORPUS = CorporaSettings(
    affectnet_images=56, affectnet_px=192, vocaset_sentences=1, ravdess_actors=1, mead_actors=1, film_px=192
)


def _params() -> dict:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["profiles"] = ["full"]
    for section, values in SMALLER.items():
        params["full"][section] |= values
    params["full"]["reconstruct"]["emica"] |= {"device": "cpu", "threads": 2, "batch": 4}
    for network in ("selftalk", "funet"):
        params["full"][network]["training"] |= TRAINING
    return params


def _supply_assets(downloads: Path, data: Path) -> None:
    downloads.mkdir()
    write_flame_pickle(downloads / "generic_model.pkl", chumpy=True, seed=1)
    write_flame_masks(downloads / "FLAME_masks.pkl")
    write_flame_landmarks(downloads)
    write_flame_mediapipe(downloads / "mediapipe_landmark_embedding.npz")
    write_flame_uv(downloads / "head_template.obj")
    write_lightning(downloads / "emica.ckpt", emica_tensors(variant_of_widths(86, 100)))
    write_hubert(downloads / "hubert")
    for kind, name in (
        ("flame-masks", "FLAME_masks.pkl"),
        ("flame-landmarks", "landmark_embedding.npy"),
        ("flame-mediapipe", "mediapipe_landmark_embedding.npz"),
        ("flame-uv", "head_template.obj"),
        ("emica", "emica.ckpt"),
        ("hubert", "hubert"),
    ):
        add_asset(kind, downloads / name, data)
    add_asset("flame", downloads / "generic_model.pkl", data, basis=BASIS)
    shutil.rmtree(downloads)


def _supply_corpora(data: Path) -> None:
    raw = data / "raw"
    world = SampleWorld(asset=build_open_head(), seed=3)
    items = affectnet.plan_faces(_CORPUS, world)
    (raw / "affectnet").mkdir(parents=True)
    lines, _ = affectnet.make_faces(world, items, _CORPUS, raw / "affectnet")
    affectnet.write_lists(items, lines, raw / "affectnet")
    (raw / "vocaset").mkdir()
    write_vocaset(raw / "vocaset", FaceAsset.load(data / "assets" / "face" / "face_model.npz"))
    neutral = next(path for path in sorted((raw / "affectnet").rglob("*.png")))
    picture = read_image(neutral)
    for film, sound in (
        ("ravdess/Actor_01/01-01-01-01-01-01-01.mp4", "ravdess/Actor_01/03-01-01-01-01-01-01.wav"),
        ("mead/M003/video/front/neutral/level_1/001.mp4", "mead/M003/audio/neutral/level_1/001.wav"),
    ):
        for name in (film, sound):
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(raw / film, [picture] * 3, 30)
        soundfile.write(raw / sound, np.zeros(16000), 16000)


def _run(root: Path, api: str, module: str, stage: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": api}
    done = subprocess.run(
        [sys.executable, "-m", module, stage, "--profile", "full"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{stage}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
