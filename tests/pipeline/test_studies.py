"""Laws of the studies' stage; what a study finds is tested with the library."""

import pytest

from ecavatar.config import STUDIES
from ecavatar.errors import ConfigError
from flows import code_deps
from flows.paths import ProfilePaths
from flows.studies import study


def test_an_unknown_study_is_refused_before_anything_is_read():
    with pytest.raises(ConfigError, match="unknown study 'lips'; expected one of: mouth"):
        study.fn(profile="sample", study="lips")


def test_every_study_has_a_folder_of_its_own_among_the_reports():
    folders = {ProfilePaths("sample").study(name).as_posix() for name in STUDIES}
    assert folders == {f"reports/sample/studies/{name}" for name in STUDIES}


def test_the_study_of_the_mouth_does_not_wait_for_a_network():
    files = code_deps.code_deps("studies", "study")
    assert "ecavatar/evaluation/mouth_study.py" in files
    assert not [file for file in files if file.startswith(("ecavatar/models/", "ecavatar/training/"))]
