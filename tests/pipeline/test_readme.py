"""Every shell block of the README runs as it stands, in a clone in which the pipeline has run."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

COVERED_ELSEWHERE = frozenset(
    {
        "make repro",  # test_end_to_end.py
        "make test",  # is what runs this
    }
)
"""The only commands of the README that are not executed here."""


def blocks():
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    return re.findall(r"^```(?:sh|bash|shell|console)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def executed(block):
    lines = block.splitlines()
    return "\n".join(line for line in lines if line.split("#")[0].strip() not in COVERED_ELSEWHERE)


def test_the_readme_is_short_and_shows_the_two_commands():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    commands = {line.split("#")[0].strip() for block in blocks() for line in block.splitlines()}
    assert commands >= COVERED_ELSEWHERE


def test_every_fence_says_its_language():
    fences = re.findall(r"^```(\w*)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert all(fences[::2]), "a block without a language would not be run"


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(), ids=range(len(blocks())))
def test_a_block_runs(block, built):
    script = executed(block)
    if not script.strip():
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=built.root,
        env=built.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
