"""A task for the training loop whose items differ in length; also a program, for processes of its own.

`python -m tests.fabricate_training DIRECTORY dropped|killed|several` trains and leaves, of every training, curve.csv
and one json per process. `killed` kills itself (-9) in its 16th batch; `several` is for torchrun.
"""

import contextlib
import json
import math
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from ecavatar.config import TrainingSettings
from ecavatar.errors import TrainingError
from ecavatar.training.loop import TrainingState, seeded_torch, train, write_curve
from ecavatar.training.processes import is_main_process, process_rank

SETTINGS = TrainingSettings(
    device="cpu", precision="no", threads=1, epochs=6, batch=2, accumulate=2, bucket=True, patience=5,
    learning_rate=0.01, schedule="cosine", clip_norm=0.5, validate_every=1, checkpoint_every=1,
)  # fmt: skip
WIDTH = 3


class Frames(nn.Module):
    """Linear regression frame by frame, two losses with denominators of their own: frames, and pairs of frames."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 2), nn.Dropout(dropout))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, batch):
        errors = [self.net(x) - y for x, y in batch]
        losses = {"place": torch.cat([e.square().mean(dim=1) for e in errors]).mean()}
        losses["speed"] = torch.cat([e.diff(dim=0).square().mean(dim=1) for e in errors]).mean()
        return losses | {"loss": self.total(losses)}

    @staticmethod
    def total(losses):
        return losses["place"] + 0.3 * losses["speed"]


class FramesObjective:
    """21 clips of 2 to 12 frames."""

    name, score = "frames", "val_place"

    def __init__(self, items=21, dropout=0.0, poison=None, stop_at=None, stop=None):
        with seeded_torch(0, "frames", "weights"):
            self.module = Frames(dropout)
            self.clips = [(x := torch.randn(2 + 7 * i % 11, WIDTH), x[:, :2].sin() + 0.1 * i) for i in range(items)]
        self.poison, self.stop_at, self.stop, self.seen = poison, stop_at, stop, []

    def __len__(self):
        return len(self.clips)

    def batch(self, items, device):
        self.seen.append(list(items))
        if self.stop is not None and len(self.seen) == self.stop_at:
            self.stop()
        return [(x, y * (math.nan if i == self.poison else 1)) for i in items for x, y in [self.clips[i]]]

    def describe(self, items):
        return "items " + ",".join(map(str, items))

    def validate(self, device):
        return {f"val_{name}": float(value) for name, value in self.module(self.clips[::4]).items()}

    def lengths(self):
        return [len(x) for x, _ in self.clips]

    def weight(self, items):
        frames = [len(self.clips[item][0]) for item in items]
        return {"place": sum(frames), "speed": sum(frames) - len(frames)}

    def total(self, losses):
        return self.module.total(losses)


def record(directory: Path, objective: FramesObjective, **changes) -> TrainingState:
    """Train, and leave what came of it."""
    directory.mkdir(exist_ok=True)
    settings = SETTINGS.model_copy(update=changes)
    state = train(objective, settings, seed=1, data_hash="d", checkpoint=directory / "checkpoint.pt")
    weights = {name: {n: x.tolist() for n, x in getattr(state, name).items()} for name in ("best", "last")}
    found = weights | {"rows": state.rows, "batches": len(objective.seen), "is_main": is_main_process()}
    (directory / f"{process_rank()}.json").write_text(json.dumps(found))
    if is_main_process():
        write_curve(directory / "curve.csv", state.rows)
    return state


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _several(directory: Path) -> None:
    record(directory / "plain", FramesObjective())
    record(directory / "whole", FramesObjective(dropout=0.2))
    third_epoch = 13 - 2 * process_rank()  # of the 11 batches of an epoch, the first process takes 6
    with contextlib.suppress(KeyboardInterrupt):
        record(directory / "resumed", FramesObjective(dropout=0.2, stop_at=third_epoch, stop=_interrupt))
    record(directory / "resumed", FramesObjective(dropout=0.2))
    try:
        record(directory / "poisoned", FramesObjective(poison=7))
    except TrainingError as error:
        (directory / "poisoned" / f"{process_rank()}.txt").write_text(str(error))


def _main(directory: Path, what: str) -> None:
    if what == "several":
        _several(directory)
    else:
        record(directory, FramesObjective(dropout=0.2, stop_at=16 if what == "killed" else None, stop=_kill))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
