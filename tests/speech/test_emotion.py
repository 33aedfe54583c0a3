"""A model that cannot be opened is told before any library is imported or prints, and nothing is fetched for a path."""

import subprocess
import sys
from pathlib import Path

import pytest

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.speech.emotion import MODEL_FILES, PUBLISHED, check_emotion_model
from ecavatar.speech.emotion_file import write_emotion_track

CONFIG = "model_conf: {{modalities: {{audio: {{feature_encoder_spec: '{}'}}}}}}"
SPEC = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"


def folder(path: Path, spec: str) -> Path:
    path.mkdir()
    for name in MODEL_FILES:
        (path / name).write_text("")
    (path / "config.yaml").write_text(CONFIG.format(spec))
    return path


def test_published_ids_and_complete_folders_pass(tmp_path: Path) -> None:
    for model in (*PUBLISHED, folder(tmp_path / "m", SPEC)):
        check_emotion_model(model)


@pytest.mark.parametrize("model", ["no/such/folder", "iic/emotion2vec_large_plus", "/"])
def test_what_is_neither_a_folder_nor_a_known_id_is_refused(model: str) -> None:
    with pytest.raises(AssetMissingError, match=r"config\.yaml, model\.pt, tokens\.txt not found in"):
        check_emotion_model(model)


@pytest.mark.parametrize("spec", ['__import__("os").system("true")', "[(x, 1, 1)]", ""])
def test_a_config_that_would_run_code_is_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DataError, match="evaluates this line as Python"):
        check_emotion_model(folder(tmp_path / "m", spec))


def test_a_config_without_convolutions_is_refused(tmp_path: Path) -> None:
    model = folder(tmp_path / "m", SPEC)
    (model / "config.yaml").write_text("")
    with pytest.raises(DataError, match="None"):
        check_emotion_model(model)
    (model / "config.yaml").write_text("model_conf: [")
    with pytest.raises(DataError, match="not yaml"):
        check_emotion_model(model)


def test_a_missing_model_is_named_before_the_sound_is_read(tmp_path: Path) -> None:
    with pytest.raises(AssetMissingError, match="emotion2vec"):
        write_emotion_track(tmp_path / "no.wav", tmp_path / "t.json", model=tmp_path / "none", window=3.0)
    with pytest.raises(AssetMissingError, match=r"no\.wav"):
        write_emotion_track(tmp_path / "no.wav", tmp_path / "t.json", model=PUBLISHED[0], window=3.0)


def test_a_missing_model_is_named_without_importing_funasr() -> None:
    code = (
        "import sys\n"
        "from ecavatar.errors import AssetMissingError\n"
        "from ecavatar.speech.emotion import recognise_emotions\n"
        "try:\n"
        "    recognise_emotions('/no/such/folder', [])\n"
        "except AssetMissingError:\n"
        "    sys.exit(1 if 'funasr' in sys.modules else 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
