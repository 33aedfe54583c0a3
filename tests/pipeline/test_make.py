"""Laws of the Makefile and the set-up script."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_help_lists_every_target_with_a_sentence():
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE)
    assert set(targets) >= {"help", "setup", "repro", "test", "lint", "bench", "report", "studies", "doctor", "clean"}
    for target in targets:
        assert re.search(rf"^  make {target} +\S", text, flags=re.MULTILINE), target


def test_ci_runs_lint_and_tests():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert re.findall(r"^make (\w+)$", script.read_text(), flags=re.MULTILINE) == ["lint", "test"]


def test_the_lock_pins_every_declared_dependency_inside_its_range():
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line and line[0] != "#"]
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["full"], *extras["dev"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_nothing_that_breaks_on_a_cpu_build_of_torch_is_pinned():
    text = (ROOT / "requirements.lock").read_text()
    for name in ("torchvision", "torchaudio", "timm", "lightning", "opencv-python"):
        assert not re.search(rf"^{name}(-headless)?==", text, flags=re.MULTILINE), name
    assert "fastapi==0.154.0" in text


def test_no_registry_is_named():
    for name in ("pyproject.toml", "requirements.lock", "Makefile", "scripts/setup.sh", ".pre-commit-config.yaml"):
        text = (ROOT / name).read_text()
        assert "index-url" not in text, name
        assert "://" not in text, name
