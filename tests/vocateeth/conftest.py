"""A VOCATeeth of the open head with a small mouth, small enough to build in seconds."""

from pathlib import Path

import pytest

from ecavatar.config import RigSettings
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.model import MouthMesh
from ecavatar.vocateeth.build import rig_folder
from ecavatar.vocateeth.dataset import VocaTeeth
from ecavatar.vocateeth.licence import write_free
from tests.fabricate import write_vocaset
from tests.fabricate_mouth import open_face, small_mouth


@pytest.fixture(scope="session")
def rig_settings() -> RigSettings:
    return RigSettings(mouth="procedural", fps=30, patch_mm=0.0, max_rejects=0.5)


@pytest.fixture(scope="session")
def head() -> FaceAsset:
    return open_face()


@pytest.fixture(scope="session")
def mouth() -> MouthMesh:
    return small_mouth()


@pytest.fixture(scope="session")
def raw(tmp_path_factory, head) -> Path:
    """A raw VOCASET of `head`."""
    root = tmp_path_factory.mktemp("raw")
    write_vocaset(root, head)
    return root


@pytest.fixture(scope="session")
def vocaset(raw) -> Vocaset:
    return Vocaset.open(raw)


@pytest.fixture(scope="session")
def teeth(tmp_path_factory, raw, head, mouth, rig_settings) -> VocaTeeth:
    """The dataset of `raw`; read it, and copy it before changing anything."""
    directory = tmp_path_factory.mktemp("teeth") / "vocateeth"
    rig_folder(raw, directory, head, rig_settings, mouth)
    return VocaTeeth.open(directory)


@pytest.fixture(scope="session")
def free(teeth, tmp_path_factory):
    """What of the dataset may always be passed on; do not change it."""
    out = tmp_path_factory.mktemp("free") / "angles"
    write_free(teeth.directory, out)
    return out
