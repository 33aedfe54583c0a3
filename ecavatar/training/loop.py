"""One training loop for every network: seeded, resumable to the bit, ending with the best weights.

A network brings an `Objective`: what a step sees, which losses it gives, how it is validated. The loop owns everything
else: device and precision (through accelerate), thread count, random state, schedule, checkpoints, the choice of
weights, the curve. Batches depend on seed and epoch alone and the rest of the random state lies in the checkpoint, so
a run that was killed and started again ends, on a CPU, with the same bytes as one that was not.
"""

import csv
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ecavatar.config import TrainingSettings
from ecavatar.errors import ConfigError, TrainingError
from ecavatar.seeding import derived_seed, stream
from ecavatar.storage.files import atomic_path
from ecavatar.storage.shards import input_hash

logger = logging.getLogger(__name__)
_WARM_UP, _END = 0.05, 0.01  # of the cosine schedule: share of steps on the way up, last rate over highest


class Objective(Protocol):
    """What the loop needs to know about one network's task."""

    name: str
    """Names the random streams and the log lines."""
    module: nn.Module
    """Called with a batch, gives its losses by name; `loss` is minimised, all of them enter the curve."""
    score: str
    """Key of `validate`'s answer that chooses the weights; smaller is better."""

    def __len__(self) -> int:
        """Items in the training set."""
        ...

    def batch(self, items: Sequence[int], device: torch.device) -> Any:
        """Tensors of these training items."""
        ...

    def describe(self, items: Sequence[int]) -> str:
        """Names of these items, for an error message."""
        ...

    def validate(self, device: torch.device) -> dict[str, float]:
        """Figures on the validation set; called in evaluation mode and without gradients."""
        ...


@dataclass(kw_only=True)
class TrainingState:
    """Everything that changes while training, apart from the network and the optimiser."""

    epoch: int = 0
    """Epochs finished."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The curve: one row an epoch."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights at the best validation."""
    best_epoch: int = 0
    best_score: float = math.inf


def train(
    objective: Objective, settings: TrainingSettings, *, seed: int, data_hash: str, checkpoint: Path
) -> TrainingState:
    """Train `objective.module` in place; at the end it holds the weights of the best validated epoch, on the CPU.

    Args:
        objective: built with seeded weights (see `seeded_torch`).
        settings: the network's `training` section.
        seed: of params.yaml.
        data_hash: of everything else that decides the result: data, sizes, loss weights.
        checkpoint: file to resume from and to keep; a checkpoint of other settings or data is ignored. The caller
            removes it once the results are written.

    Raises:
        ConfigError: the device or precision asked for is not there.
        TrainingError: a loss (the batch is named) or the validation score is not finite, or the training set is empty.
    """
    if not len(objective):
        raise TrainingError(f"{objective.name}: the training set is empty.")
    digest = input_hash(objective.name, settings, seed, data_hash)
    with fixed_threads(settings.threads), seeded_torch(seed, objective.name, "training"):
        run = _Run(objective, settings, seed)
        run.resume(checkpoint, digest)
        if not run.state.rows:
            run.begin()
        while run.state.epoch < settings.epochs:
            run.epoch()
            if run.state.epoch % settings.checkpoint_every == 0 and run.state.epoch < settings.epochs:
                run.keep(checkpoint, digest)
        run.finish()
        return run.state


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Torch's CPU threads set to `count`, and put back afterwards: the last bits of sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded_torch(seed: int, *names: object) -> Iterator[None]:
    """Torch's global generators seeded for the use called `names`, and put back as they were afterwards."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, *names))
        yield


def figures_of(state: TrainingState) -> dict[str, float]:
    """The validation figures of the chosen epoch."""
    row = next(row for row in state.rows if row["epoch"] == state.best_epoch)
    return {name: value for name, value in row.items() if name.startswith("val_")}


def write_curve(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write a training curve as csv, one row an epoch; a figure that an epoch lacks stays empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_number(row[key]) if key in row else "" for key in columns])


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Rate of step `step` (from 0) of `steps`."""
    if settings.schedule == "constant":
        return settings.learning_rate
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return settings.learning_rate * (_END + (1 - _END) * 0.5 * (1 + math.cos(math.pi * progress)))


class _Run:
    """One call of `train`."""

    def __init__(self, objective: Objective, settings: TrainingSettings, seed: int) -> None:
        self.objective, self.settings, self.seed = objective, settings, seed
        self.accelerator = _accelerator(settings)
        trained = [parameter for parameter in objective.module.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=settings.learning_rate, betas=(0.9, 0.999), fused=True)
        self.trained = trained
        self.module, self.optimiser = self.accelerator.prepare(objective.module, optimiser)
        self.state = TrainingState()
        self.steps_an_epoch = math.ceil(len(objective) / settings.batch)

    def begin(self) -> None:
        """Validate the weights that training starts from: epoch 0 of the curve."""
        row = {"epoch": 0, "step": 0} | self._validation()
        self.state.rows.append(row)
        logger.info("%s: untrained, %s %.4g", self.objective.name, self.objective.score, row[self.objective.score])

    def epoch(self) -> None:
        """One pass over the training set, and its validation."""
        started = time.monotonic()
        sums: dict[str, float] = {}
        self.module.train()
        for index, items in enumerate(self._batches()):
            step = self.state.epoch * self.steps_an_epoch + index
            for name, value in self._step(items, step).items():
                sums[name] = sums.get(name, 0.0) + value * len(items)
        self.state.epoch += 1
        steps = self.state.epoch * self.steps_an_epoch
        rate = learning_rate(self.settings, steps - 1, self.settings.epochs * self.steps_an_epoch)
        row = {"epoch": self.state.epoch, "step": steps, "learning_rate": rate}
        row |= {f"train_{name}": value / len(self.objective) for name, value in sums.items()}
        row |= self._validation()
        self.state.rows.append(row)
        self._report(row, time.monotonic() - started)

    def _batches(self) -> list[list[int]]:
        order = stream(self.seed, self.objective.name, "epoch", self.state.epoch).permutation(len(self.objective))
        size = self.settings.batch
        return [order[first : first + size].tolist() for first in range(0, len(order), size)]

    def _step(self, items: Sequence[int], step: int) -> dict[str, float]:
        rate = learning_rate(self.settings, step, self.settings.epochs * self.steps_an_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with self.accelerator.autocast():
            losses = self.module(self.objective.batch(items, self.accelerator.device))
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        if not math.isfinite(values["loss"]):
            broken = ", ".join(f"{name} {value:g}" for name, value in values.items())
            raise TrainingError(
                f"{self.objective.name}: the loss of step {step + 1} is not finite ({broken}). "
                f"Batch: {self.objective.describe(items)}. Check these items, or lower learning_rate or set clip_norm."
            )
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(losses["loss"])
        if self.settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.trained, self.settings.clip_norm)
        self.optimiser.step()
        return values

    def _validation(self) -> dict[str, float]:
        """Validation figures when this epoch has its turn; keeps the weights if they are the best."""
        if self.state.epoch % self.settings.validate_every and self.state.epoch < self.settings.epochs:
            return {}
        self.module.eval()
        with torch.no_grad():
            figures = self.objective.validate(self.accelerator.device)
        score = figures[self.objective.score]
        if not math.isfinite(score):
            raise TrainingError(
                f"{self.objective.name}: {self.objective.score} of epoch {self.state.epoch} is {score}."
            )
        if score < self.state.best_score:
            self.state.best_score, self.state.best_epoch = score, self.state.epoch
            self.state.best = _copied(self._bare().state_dict())
        return figures

    def _report(self, row: Mapping[str, float], seconds: float) -> None:
        score = f", {self.objective.score} {row[self.objective.score]:.4g}" if self.objective.score in row else ""
        logger.info(
            "%s: epoch %d of %d, loss %.4g%s (%.1f s)",
            self.objective.name, self.state.epoch, self.settings.epochs, row["train_loss"], score, seconds,
        )  # fmt: skip

    def _bare(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.module)

    def keep(self, path: Path, digest: str) -> None:
        """Write the checkpoint, whole or not at all."""
        content = {
            "digest": digest,
            "module": self._bare().state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "state": vars(self.state),
        }
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def resume(self, path: Path, digest: str) -> None:
        """Take up the checkpoint if it is one of this very run."""
        content = _read_checkpoint(path)
        if content is None or content.get("digest") != digest:
            return
        self._bare().load_state_dict(content["module"])
        self.optimiser.load_state_dict(content["optimiser"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["rng"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["cuda_rng"])
        self.state = TrainingState(**content["state"])
        logger.info("%s: resumed after epoch %d", self.objective.name, self.state.epoch)

    def finish(self) -> None:
        """Put the best weights into the objective's module, in evaluation mode on the CPU."""
        module = self._bare()
        module.load_state_dict(self.state.best)
        module.to("cpu").eval()
        self.accelerator.free_memory()


def _accelerator(settings: TrainingSettings) -> Any:
    from accelerate import Accelerator  # seconds to import
    from accelerate.state import AcceleratorState

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device is cuda, but torch sees no GPU. Set it to auto or cpu.")
    use_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    if use_cpu and settings.precision == "fp16":
        raise ConfigError("training.precision fp16 needs a GPU. Set it to bf16 or no.")
    AcceleratorState._reset_state(True)  # it is a process-wide singleton: a former run's precision would stick
    accelerator = Accelerator(cpu=use_cpu, mixed_precision=settings.precision)
    if accelerator.num_processes > 1:
        raise ConfigError("training runs in one process. Start it without torchrun or accelerate launch.")
    return accelerator


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch names no type for a damaged file; starting anew loses time only)
        logger.warning("checkpoint %s cannot be read (%s); training starts anew.", path, type(error).__name__)
        return None


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"
