"""A task for the training loop whose items differ in length; also a program: one training with it, for torchrun.

`python -m tests.fabricate_training DIRECTORY BATCH [kill]` writes curve.csv, last.txt and best.txt there. With `kill`,
it kills itself (-9) in the sixth batch. The settings are `SETTINGS`, apart from the batch.
"""

import math
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from ecavatar.config import TrainingSettings
from ecavatar.training.loop import seeded_torch, train, write_curve
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

    def __init__(self, items=21, dropout=0.0, poison=None, kill_at=None):
        with seeded_torch(0, "frames", "weights"):
            self.module = Frames(dropout)
            self.clips = [(x := torch.randn(2 + 7 * i % 11, WIDTH), x[:, :2].sin() + 0.1 * i) for i in range(items)]
        self.poison, self.kill_at, self.seen = poison, kill_at, []

    def __len__(self):
        return len(self.clips)

    def batch(self, items, device):
        self.seen.append(list(items))
        if len(self.seen) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
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


def _main(directory: Path, batch: int, *, kill: bool) -> None:
    objective = FramesObjective(dropout=0.2 if kill or directory.name == "killed" else 0.0, kill_at=6 if kill else None)
    settings = SETTINGS.model_copy(update={"batch": batch})
    before = sorted(directory.iterdir())
    state = train(objective, settings, seed=1, data_hash="d", checkpoint=directory / "checkpoint.pt")
    (directory / f"rank-{process_rank()}.txt").write_text(repr({n: t.tolist() for n, t in state.best.items()}))
    if is_main_process():
        write_curve(directory / "curve.csv", state.rows)
        (directory / "resumed.txt").write_text(str([path.name for path in before] != []))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), kill="kill" in sys.argv[3:])
