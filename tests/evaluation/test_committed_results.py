"""The committed results: what the README prints is what metrics.json says, and trained beats untrained."""

import json
from pathlib import Path

import pytest

ROWS = {
    "neutral face": "neutral",
    "train mean": "train-mean",
    "SelfTalk": "selftalk",
    "ours, emotion given": "ours-given",
    "ours, emotion recognised": "ours-recognised",
}
COLUMNS = (("vocaset", "lve_m2"), ("ravdess", "eve_m2"), ("mead", "eve_m2"))


@pytest.fixture(scope="module")
def errors(repository: Path) -> dict:
    return json.loads((repository / "reports/sample/metrics.json").read_text())["errors"]


@pytest.mark.parametrize("title", ROWS)
def test_the_readmes_table_is_the_committed_metrics(repository: Path, errors: dict, title: str) -> None:
    cells = [f"{errors[corpus][ROWS[title]][metric]['mean'] * 1e5:.2f}" for corpus, metric in COLUMNS]
    assert f"| {title} | {' | '.join(cells)} |" in (repository / "README.md").read_text()


def test_trained_beats_untrained(errors: dict) -> None:
    lve = {method: row["lve_m2"]["mean"] for method, row in errors["vocaset"].items()}
    assert lve["selftalk"] < min(lve["train-mean"], lve["neutral"])
    for corpus in ("ravdess", "mead"):
        eve = {method: row["eve_m2"]["mean"] for method, row in errors[corpus].items()}
        assert eve["ours-given"] < eve["neutral"]
