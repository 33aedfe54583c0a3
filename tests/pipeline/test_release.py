"""Laws of releasing: only what can be rebuilt, checked and passed on gets a number, and a number never changes."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ecavatar.emolib.verify import verify
from ecavatar.errors import AssetMissingError, ConfigError, EcavatarError, SplitLeakError
from ecavatar.face.model import FaceAsset
from ecavatar.storage.files import read_json, sha256_file, write_json
from ecavatar.storage.parquet import write_table
from ecavatar.vocateeth.verify import verify_vocateeth
from flows import release
from flows.release import EMOLIB, VOCATEETH, ReleaseError, release_product, require_free, require_sound
from tests.fabricate import write_vocaset
from tests.fabricate_emolib import LEAN, changed_column, fabricated_faces, write_release
from tests.fabricate_mouth import open_face

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = """
stages:
  reconstruct_faces:
    matrix: {profile: [sample]}
    cmd: cp faces.parquet data/sample/faces.parquet
    deps: [faces.parquet]
    params: [sample.reconstruct]
    outs: [data/sample/faces.parquet]
  export_emolib:
    matrix: {profile: [sample]}
    cmd: python build.py
    deps: [build.py, data/sample/faces.parquet, data/sample/assets/face/face_model.npz]
    params: [sample.export]
    outs: [data/sample/emolib]
"""
BUILD = """
from pathlib import Path
from ecavatar.face.model import FaceAsset
from tests.fabricate_emolib import write_release
asset = FaceAsset.load(Path("data/sample/assets/face/face_model.npz"))
write_release(Path("data/sample/emolib"), asset, [Path("data/sample/faces.parquet")])
"""


def environment(**more):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DVC_", "GIT_"))}
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(ROOT), **more}


def run(root, *command):
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def commit(root):
    run(root, "git", "add", "--all")
    run(root, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-q", "-m", "Change")


def rebuild(root):
    run(root, sys.executable, "-m", "dvc", "repro", "-q")
    commit(root)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory, small_face):
    """A checkout in which dvc has built a small release from 24 faces, everything committed."""
    root = tmp_path_factory.mktemp("release") / "checkout"
    root.mkdir()
    small_face.save(root / "data" / "sample" / "assets" / "face" / "face_model.npz")
    write_table(root / "faces.parquet", fabricated_faces(small_face, 24))
    started(root, PIPELINE, BUILD)
    return root


def started(root, pipeline, build):
    """Make the folder `root` a checkout in which `pipeline` has run."""
    shutil.copy(ROOT / "params.yaml", root)
    for name, text in (("dvc.yaml", pipeline), ("build.py", build), (".gitignore", "/data/\n")):
        (root / name).write_text(text)
    run(root, "git", "init", "-q", ".")
    run(root, sys.executable, "-m", "dvc", "init", "-q")
    rebuild(root)


@pytest.fixture
def checkout(scratch, tmp_path, monkeypatch):
    """A copy of `scratch` for one test, which runs in it."""
    return copied(scratch, tmp_path, monkeypatch)


def copied(scratch, tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    shutil.copytree(scratch, root)
    monkeypatch.chdir(root)
    for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_"))]:
        monkeypatch.delenv(name)
    return root


@pytest.mark.slow
def test_a_release_verifies_and_says_where_it_comes_from(checkout):
    line = release_product(EMOLIB, "sample", "1.0.0")
    made = checkout / "data" / "sample" / "releases" / "emolib-1.0.0"
    assert line == "emolib-1.0.0 in data/sample/releases: 24 items, the first release"
    assert verify(made) == []
    built = checkout / "data" / "sample" / "emolib"
    for path in built.rglob("*.parquet"):
        assert sha256_file(made / path.relative_to(built)) == sha256_file(path)
    facts = read_json(made / "release.json")
    assert facts["git_commit"] == run(checkout, "git", "rev-parse", "HEAD").strip()
    lock = (checkout / "dvc.lock").read_text()
    assert facts["dvc_lock"]["output_md5"].endswith(".dir")
    assert facts["dvc_lock"]["output_md5"] in lock
    assert set(facts["params"]) == {"export_emolib@sample", "reconstruct_faces@sample"}
    assert "pyarrow" in facts["tools"]
    assert not [path for path in (checkout / "data" / "sample").iterdir() if path.name.startswith(".release-")]
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"has emolib-1\.0\.0 already"):
        release_product(EMOLIB, "sample", "1.0.0")
    with pytest.raises(ConfigError, match=r"not higher than 1\.0\.0"):
        release_product(EMOLIB, "sample", "0.9.0")
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_the_next_release_tells_what_it_changes(checkout, small_face, tmp_path):
    release_product(EMOLIB, "sample", "1.0.0", str(tmp_path / "shelf"))
    write_table(checkout / "faces.parquet", fabricated_faces(small_face, 27).slice(1))
    rebuild(checkout)
    line = release_product(EMOLIB, "sample", "1.1.0", str(tmp_path / "shelf"))
    assert line.endswith("26 items, 3 added, 1 removed, 0 changed since 1.0.0")
    made = tmp_path / "shelf" / "emolib-1.1.0"
    assert verify(made) == []
    assert len(read_json(made / "changes.json")["changes"]["items"]["added"]) == 3
    assert "# Changes from 1.0.0 to 1.1.0" in (made / "CHANGES.md").read_text()
    with pytest.raises(ConfigError, match="--previous"):
        release_product(EMOLIB, "sample", "1.0.1", str(tmp_path / "shelf"))
    older = str(tmp_path / "shelf" / "emolib-1.0.0")
    assert release_product(EMOLIB, "sample", "1.0.1", str(tmp_path / "shelf"), older).endswith("since 1.0.0")


@pytest.mark.slow
def test_uncommitted_work_is_refused(checkout):
    params = checkout / "params.yaml"
    params.write_text(params.read_text() + "# a thought\n")
    with pytest.raises(ReleaseError, match=r"1 change\(s\)[\s\S]*M params\.yaml[\s\S]*Commit"):
        release_product(EMOLIB, "sample", "1.0.0")
    run(checkout, "git", "checkout", "-q", "params.yaml")
    (checkout / "ecavatar").mkdir()
    (checkout / "ecavatar" / "forgotten.py").write_text("")
    with pytest.raises(ReleaseError, match=r"\?\? ecavatar/forgotten\.py"):
        release_product(EMOLIB, "sample", "1.0.0")
    shutil.rmtree(checkout / "ecavatar")
    (checkout / "notes.txt").write_text("mine")  # decides nothing
    run(checkout, "git", "rm", "-q", "--cached", "dvc.lock")
    run(checkout, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", "Forget")
    with pytest.raises(ReleaseError, match=r"dvc\.lock"):
        release_product(EMOLIB, "sample", "1.0.0")
    assert not (checkout / "data" / "sample" / "releases").exists()


@pytest.mark.slow
def test_data_that_dvc_does_not_know_are_refused(checkout):
    card = checkout / "data" / "sample" / "emolib" / "README.md"
    text = card.read_text()
    card.write_text(text + "by hand")
    with pytest.raises(ReleaseError, match=r"export_emolib@sample[\s\S]*data/sample/emolib[\s\S]*dvc repro"):
        release_product(EMOLIB, "sample", "1.0.0")
    card.write_text(text)
    params = checkout / "params.yaml"  # a number of a stage further up, not run since
    changed = params.read_text().replace("max_residual_mm: 8.0", "max_residual_mm: 7.0")
    assert changed != params.read_text()
    params.write_text(changed)
    commit(checkout)
    with pytest.raises(ReleaseError, match="reconstruct_faces@sample"):
        release_product(EMOLIB, "sample", "1.0.0")
    assert not (checkout / "data" / "sample" / "releases").exists()


def test_no_release_is_made_outside_a_checkout_or_inside_a_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ReleaseError, match="git checkout"):
        release_product(EMOLIB, "sample", "1.0.0")
    monkeypatch.setenv("DVC_STAGE", "export_emolib@sample")
    with pytest.raises(ConfigError, match="inside the DVC stage"):
        release_product(EMOLIB, "sample", "1.0.0")


@pytest.mark.parametrize(
    ("version", "to", "previous", "error", "message"),
    [
        ("1.0", "", "", ConfigError, "semver"),
        ("1.0.0", "nonsense://x", "", ConfigError, "nonsense"),
        ("2.0.0", "", "somewhere/else", ConfigError, "emolib-VERSION"),
        ("2.0.0", "", "somewhere/emolib-1.0.0", AssetMissingError, "check --previous"),
        ("2.0.0", "", "somewhere/emolib-3.0.0", ConfigError, "not higher"),
    ],
)
def test_wrong_options_are_told_before_anything_is_looked_at(
    tmp_path, monkeypatch, version, to, previous, error, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(release, "require_committed", lambda: pytest.fail("too late"))
    with pytest.raises(error, match=message):
        release_product(EMOLIB, "sample", version, to, previous)


@pytest.fixture
def built(tmp_path, small_face):
    return write_release(tmp_path / "sample" / "emolib", small_face, fabricated_faces(small_face, 24))


def test_what_is_sound_may_be_released(built, small_face):
    require_sound(EMOLIB, built, small_face)
    require_free(EMOLIB, built)
    assert EMOLIB.size(built) == "24 items"


def test_a_leaking_split_is_refused(built, small_face):
    """The same photograph in train and val, slipped in behind the exporter's back."""
    train, val = (next((built / "data" / "coefficients").glob(f"{split}-*")) for split in ("train", "val"))
    source = pq.read_table(train)["source_id"][0].as_py()
    table = pq.read_table(val)
    write_table(val, changed_column(table, "source_id", [source, *table["source_id"].to_pylist()[1:]]))
    with pytest.raises(SplitLeakError, match=r"leak[\s\S]*dvc repro --force select_images@sample"):
        require_sound(EMOLIB, built, small_face)


def test_licensed_content_is_refused(tmp_path, small_face):
    fields = {name: getattr(small_face, name) for name in FaceAsset.__dataclass_fields__}
    flame = FaceAsset(**{**fields, "topology": "flame", "basis": "flame2020"})
    settings = LEAN.model_copy(update={"vertices": "float32"})
    directory = write_release(tmp_path / "emolib", flame, fabricated_faces(flame, 24), settings)
    with pytest.raises(ReleaseError, match=r"licensed content[\s\S]*meshes of flame2020[\s\S]*vertices: none"):
        require_free(EMOLIB, directory)


def test_a_failed_verification_is_refused(built, small_face):
    stats = read_json(built / "meta" / "stats.json")
    write_json(built / "meta" / "stats.json", stats | {"rows": 1})
    with pytest.raises(ReleaseError, match=r"does not pass `ecavatar verify`[\s\S]*stats\.json"):
        require_sound(EMOLIB, built, small_face)


def test_every_refusal_is_a_mistake_of_the_user():
    assert issubclass(ReleaseError, EcavatarError)


def test_help_gives_an_example(capsys):
    for arguments in (["--help"], ["emolib", "--help"], ["vocateeth", "--help"]):
        with pytest.raises(SystemExit) as ended:
            release.main(arguments)
        assert ended.value.code == 0
        told = " ".join(capsys.readouterr().out.split())
        for name in ("emolib", "vocateeth"):
            assert f"python -m flows.release {name} --version 1.0.0" in told


@pytest.mark.slow
def test_the_command_line_uploads_and_tells_mistakes_by_exit_code_two(checkout, tmp_path):
    """One process, for memory:// lives no longer: first the release, then the same number again."""
    script = textwrap.dedent(
        """
        import fsspec, json
        from flows.release import main
        arguments = ["emolib", "--version", "1.0.0", "--to", "memory://shelf"]
        codes = [main(arguments), main(arguments)]
        found = fsspec.filesystem("memory").find("/shelf", detail=True)
        print(json.dumps([codes, {name: info["size"] for name, info in found.items()}]))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=checkout,
        env=environment(PREFECT_HOME=str(tmp_path / "prefect")),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    codes, found = json.loads(lines[-1])
    assert codes == [0, 2], done.stderr
    assert lines[0] == "emolib@sample 1.0.0 memory://shelf: started"
    assert lines[1].endswith("emolib-1.0.0 in memory://shelf: 24 items, the first release")
    assert done.stderr.count("error: emolib@sample 1.0.0 memory://shelf: memory://shelf has emolib-1.0.0 already") == 1
    assert "Traceback" not in done.stderr
    names = {name.removeprefix("/shelf/emolib-1.0.0/") for name in found}
    built = checkout / "data" / "sample" / "emolib"
    expected = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    assert names == expected | {"release.json", "CHANGES.md", "changes.json"}


# --- VOCATeeth --------------------------------------------------------------------------------------------------------

TEETH_PIPELINE = """
stages:
  rig_mouths:
    matrix: {profile: [sample]}
    cmd: python build.py
    deps: [build.py, data/sample/raw/vocaset]
    params: [sample.rig]
    outs: [data/sample/vocateeth]
"""
TEETH_BUILD = """
from pathlib import Path
from ecavatar.config import RigSettings
from ecavatar.face.model import FaceAsset
from ecavatar.vocateeth.build import rig_folder
from tests.fabricate_mouth import small_mouth
data = Path("data/sample")
settings = RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.5)
rig_folder(data / "raw" / "vocaset", data / "vocateeth", FaceAsset.load(data / "assets" / "face" / "face_model.npz"),
           settings, small_mouth())
"""


@pytest.fixture(scope="module")
def teeth_scratch(tmp_path_factory):
    """A checkout in which dvc has built a small VOCATeeth, everything committed."""
    root = tmp_path_factory.mktemp("teeth") / "checkout"
    (root / "data" / "sample" / "raw" / "vocaset").mkdir(parents=True)
    head = open_face()
    head.save(root / "data" / "sample" / "assets" / "face" / "face_model.npz")
    write_vocaset(root / "data" / "sample" / "raw" / "vocaset", head)
    started(root, TEETH_PIPELINE, TEETH_BUILD)
    return root


@pytest.fixture
def teeth_checkout(teeth_scratch, tmp_path, monkeypatch):
    return copied(teeth_scratch, tmp_path, monkeypatch)


@pytest.mark.slow
def test_vocateeth_is_released_whole_and_without_what_is_licensed(teeth_checkout):
    line = release_product(VOCATEETH, "sample", "1.0.0")
    shelf = teeth_checkout / "data" / "sample" / "releases"
    assert line == "vocateeth-1.0.0 in data/sample/releases: 8 clips, the first release"
    assert verify_vocateeth(shelf / "vocateeth-1.0.0") == []
    facts = read_json(shelf / "vocateeth-1.0.0" / "release.json")
    assert facts["name"] == "vocateeth"
    assert set(facts["params"]) == {"rig_mouths@sample"}
    with pytest.raises(ConfigError, match=r"Call it 2\.0\.0"):  # faces and sound are gone
        release_product(VOCATEETH, "sample", "1.1.0", content="free")
    release_product(VOCATEETH, "sample", "2.0.0", content="free")
    free = shelf / "vocateeth-2.0.0"
    assert verify_vocateeth(free) == []
    assert not list(free.rglob("data/faces")) + list(free.rglob("data/audio"))
    assert "column faces/vertices is gone" in (free / "CHANGES.md").read_text()
    assert release_product(VOCATEETH, "sample", "3.0.0").endswith("8 clips, 0 added, 0 removed, 0 changed since 2.0.0")


def test_only_vocateeth_has_a_part_that_may_always_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"emolib has no --content free[\s\S]*vertices: none"):
        release_product(EMOLIB, "sample", "1.0.0", content="free")
    with pytest.raises(ConfigError, match="unknown content 'some'"):
        release_product(VOCATEETH, "sample", "1.0.0", content="some")
