"""One training loop for every network: seeded, resumable to the bit, ending with the best weights.

A network brings an `Objective`: what a step sees, which losses it gives, how it is validated. The loop owns everything
else: device and precision (through accelerate), thread count, random state, schedule, checkpoints, the choice of
weights, the curve. Batches depend on seed and epoch alone and the rest of the random state lies in the checkpoint, so
a run that was killed and started again ends, on a CPU, with the same bytes as one that was not.

Several processes (`torchrun --nproc-per-node N`) share the batches of every step: N processes with a batch of b take
the steps of one process with a batch of N b. Files are the main process's (`is_main_process`); it alone validates.
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
from ecavatar.seeding import derived_seed
from ecavatar.storage.files import atomic_path
from ecavatar.storage.shards import input_hash
from ecavatar.training.processes import (
    gathered,
    is_main_process,
    of_main_process,
    process_count,
    process_rank,
    sum_gradients,
)
from ecavatar.training.steps import HasLengths, HasTotal, Shares, Step, plan_epoch, shares_of

logger = logging.getLogger(__name__)
_WARM_UP, _END = 0.05, 0.01  # of the cosine schedule: share of steps on the way up, last rate over highest


class Objective(Protocol):
    """What the loop needs to know about one network's task.

    `ecavatar.training.steps` names what an objective may say besides: lengths of its items, how much a batch counts.
    """

    name: str
    """Names the random streams and the log lines."""
    module: nn.Module
    """Called with a batch, gives its losses by name; `loss` is minimised, all of them enter the curve. Each is a mean
    over the items, or over what `HasWeights.weight` says."""
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
        """Figures on the validation set; called in evaluation mode and without gradients, by the main process alone."""
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
    stale: int = 0
    """Validations since the best one."""
    last: dict[str, Tensor] = field(default_factory=dict)
    """Weights after the last epoch, once training has ended; see `holding`."""


def train(
    objective: Objective, settings: TrainingSettings, *, seed: int, data_hash: str, checkpoint: Path
) -> TrainingState:
    """Train `objective.module` in place; at the end it holds the weights of the best validated epoch, on the CPU.

    The weights of the last epoch are in the answer. Where torchrun started several processes, all of them call this and
    get the same answer.

    Args:
        objective: built with seeded weights (see `seeded_torch`).
        settings: the network's `training` section.
        seed: of params.yaml.
        data_hash: of everything else that decides the result: data, sizes, loss weights.
        checkpoint: file to resume from and to keep; a checkpoint of other settings or data, or of another number of
            processes, is ignored. The caller removes it once the results are written. All processes must see it.

    Raises:
        ConfigError: the device or precision asked for is not there.
        TrainingError: a loss (the batch is named) or the validation score is not finite, the training set is empty, or
            not all processes see the checkpoint.
    """
    if not len(objective):
        raise TrainingError(f"{objective.name}: the training set is empty.")
    with fixed_threads(settings.threads):
        accelerator = _accelerator(settings)
        torch.set_num_threads(settings.threads)  # of several processes, accelerate sets its own number
        digest = input_hash(objective.name, settings, seed, data_hash, process_count())
        with seeded_torch(seed, objective.name, "training", *([process_rank()] if process_rank() else [])):
            run = _Run(objective, settings, seed, accelerator)
            run.resume(checkpoint, digest)
            if not run.state.rows:
                run.begin()
            while not run.is_over:
                run.epoch()
                if run.state.epoch % settings.checkpoint_every == 0 and not run.is_over:
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


@contextmanager
def holding(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """`module` with these weights, for instance a state's `last`; with its own again afterwards."""
    own = _copied(module.state_dict())
    module.load_state_dict(weights)
    try:
        yield
    finally:
        module.load_state_dict(own)


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

    def __init__(self, objective: Objective, settings: TrainingSettings, seed: int, accelerator: Any) -> None:
        self.objective, self.settings, self.seed, self.accelerator = objective, settings, seed, accelerator
        trained = [parameter for parameter in objective.module.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=settings.learning_rate, betas=(0.9, 0.999), fused=True)
        self.trained = trained
        # evaluation_mode: no DistributedDataParallel around it, see ecavatar.training.processes
        self.module = accelerator.prepare_model(objective.module, evaluation_mode=True)
        self.optimiser = accelerator.prepare_optimizer(optimiser)
        self.state = TrainingState()
        self.lengths = objective.lengths() if settings.bucket and isinstance(objective, HasLengths) else None
        self.steps_an_epoch = math.ceil(len(objective) / (settings.batch * self._batches_a_step))

    @property
    def _batches_a_step(self) -> int:
        return self.settings.accumulate * process_count()

    @property
    def is_over(self) -> bool:
        """Whether the last epoch, or the end of patience, is reached."""
        patience = self.settings.patience
        return self.state.epoch >= self.settings.epochs or (patience is not None and self.state.stale >= patience)

    def begin(self) -> None:
        """Validate the weights that training starts from: epoch 0 of the curve."""
        row = {"epoch": 0, "step": 0} | self._validation()
        self.state.rows.append(row)
        if is_main_process():
            logger.info("%s: untrained, %s %.4g", self.objective.name, self.objective.score, row[self.objective.score])

    def epoch(self) -> None:
        """One pass over the training set, and its validation."""
        started = time.monotonic()
        sums: dict[str, float] = {}
        self.module.train()
        for index, batches in enumerate(self._steps()):
            step = self.state.epoch * self.steps_an_epoch + index
            for name, value in self._step(batches, step).items():
                sums[name] = sums.get(name, 0.0) + value * sum(map(len, batches))
        self.state.epoch += 1
        steps = self.state.epoch * self.steps_an_epoch
        rate = learning_rate(self.settings, steps - 1, self.settings.epochs * self.steps_an_epoch)
        row = {"epoch": self.state.epoch, "step": steps, "learning_rate": rate}
        row |= {f"train_{name}": value / len(self.objective) for name, value in sums.items()}
        row |= self._validation()
        self.state.rows.append(row)
        self._report(row, time.monotonic() - started)

    def _steps(self) -> list[Step]:
        return plan_epoch(
            len(self.objective), self.seed, self.objective.name, self.state.epoch,
            batch=self.settings.batch, batches=self._batches_a_step, lengths=self.lengths,
        )  # fmt: skip

    def _step(self, batches: Step, step: int) -> dict[str, float]:
        """One step of the optimiser; the losses of all its batches together."""
        rate = learning_rate(self.settings, step, self.settings.epochs * self.steps_an_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        shares = shares_of(self.objective, batches)
        mine = range(process_rank(), len(batches), process_count())
        own = {index: self._backward(batches[index], shares[index]) for index in mine}
        parts = {index: part for answer in gathered(own) for index, part in answer.items()}
        for index in sorted(parts):
            self._require_finite(parts[index].losses, batches[index], step)
        sum_gradients(self.trained)
        if self.settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.trained, self.settings.clip_norm)
        self.optimiser.step()
        return _together([parts[index] for index in sorted(parts)], shares)

    def _backward(self, items: Sequence[int], shares: Shares) -> "_Part":
        """Add a batch's part to the gradient, unless its loss is not finite."""
        with self.accelerator.autocast():
            losses = self.module(self.objective.batch(items, self.accelerator.device))
        loss = _part_of(losses, shares, self.objective)
        values = {name: float(value.detach()) for name, value in losses.items()}
        if math.isfinite(values["loss"]):
            self.accelerator.backward(loss)
        return _Part(losses=values, minimised=float(loss.detach()))

    def _require_finite(self, losses: Mapping[str, float], items: Sequence[int], step: int) -> None:
        if not math.isfinite(losses["loss"]):
            broken = ", ".join(f"{name} {value:g}" for name, value in losses.items())
            raise TrainingError(
                f"{self.objective.name}: the loss of step {step + 1} is not finite ({broken}). "
                f"Batch: {self.objective.describe(items)}. Check these items, or lower learning_rate or set clip_norm."
            )

    def _validation(self) -> dict[str, float]:
        """Validation figures when this epoch has its turn; keeps the weights if they are the best."""
        if self.state.epoch % self.settings.validate_every and self.state.epoch < self.settings.epochs:
            return {}
        figures = of_main_process(self._validated() if is_main_process() else {})
        score = figures[self.objective.score]
        if not math.isfinite(score):
            raise TrainingError(
                f"{self.objective.name}: {self.objective.score} of epoch {self.state.epoch} is {score}. "
                "Check the validation items, or lower learning_rate or set clip_norm."
            )
        self.state.stale += 1
        if score < self.state.best_score:
            self.state.best_score, self.state.best_epoch, self.state.stale = score, self.state.epoch, 0
            self.state.best = _copied(self._bare().state_dict())
        return figures

    def _validated(self) -> dict[str, float]:
        self.module.eval()
        with torch.no_grad():
            return self.objective.validate(self.accelerator.device)

    def _report(self, row: Mapping[str, float], seconds: float) -> None:
        if not is_main_process():
            return
        score = f", {self.objective.score} {row[self.objective.score]:.4g}" if self.objective.score in row else ""
        logger.info(
            "%s: epoch %d of %d, loss %.4g%s (%.1f s)",
            self.objective.name, self.state.epoch, self.settings.epochs, row["train_loss"], score, seconds,
        )  # fmt: skip
        if self.is_over and self.state.epoch < self.settings.epochs:
            logger.info(
                "%s: stopped early, %d validations without a better one than epoch %d's",
                self.objective.name, self.state.stale, self.state.best_epoch,
            )  # fmt: skip

    def _bare(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.module)

    def keep(self, path: Path, digest: str) -> None:
        """Write the checkpoint, whole or not at all; no process goes on before it is there."""
        content = {
            "digest": digest,
            "module": self._bare().state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {},
            "rng": gathered(torch.get_rng_state()),
            "cuda_rng": gathered(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []),
            "state": vars(self.state),
        }
        if is_main_process():
            with atomic_path(path) as temporary:
                torch.save(content, temporary)
        gathered(None)

    def resume(self, path: Path, digest: str) -> None:
        """Take up the checkpoint if it is one of this very run."""
        content = _read_checkpoint(path)
        found = content is not None and content.get("digest") == digest
        if len(set(gathered(content["state"]["epoch"] if content is not None and found else None))) > 1:
            raise TrainingError(
                f"{self.objective.name}: expected every process to see the same checkpoint {path}, but they do not. "
                "Put it on a disk that all machines share, or remove it to start anew."
            )
        if content is None or not found:
            return
        self._bare().load_state_dict(content["module"])
        self.optimiser.load_state_dict(content["optimiser"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        torch.set_rng_state(content["rng"][process_rank()])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["cuda_rng"][process_rank()])
        self.state = TrainingState(**content["state"])
        if is_main_process():
            logger.info("%s: resumed after epoch %d", self.objective.name, self.state.epoch)

    def finish(self) -> None:
        """Keep the last weights and put the best into the objective's module, in evaluation mode on the CPU."""
        module = self._bare()
        self.state.last = _copied(module.state_dict())
        module.load_state_dict(self.state.best)
        module.to("cpu").eval()
        self.accelerator.free_memory()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one batch gave to a step."""

    losses: dict[str, float]
    minimised: float
    """Its part of the step's loss."""


def _part_of(losses: Mapping[str, Tensor], shares: Shares, objective: Objective) -> Tensor:
    """A batch's part of the step's loss."""
    if set(shares) == {""} or not isinstance(objective, HasTotal):
        return losses["loss"] * shares.get("loss", shares[""])
    return objective.total({n: loss * shares.get(n, shares[""]) for n, loss in losses.items() if n != "loss"})


def _together(parts: Sequence[_Part], shares: Sequence[Shares]) -> dict[str, float]:
    """The losses of one batch of all these parts' items."""
    sums = dict.fromkeys(parts[0].losses, 0.0)
    for part, share in zip(parts, shares, strict=True):
        for name, value in part.losses.items():
            sums[name] += part.minimised if name == "loss" else value * share.get(name, share[""])
    return sums


def _accelerator(settings: TrainingSettings) -> Any:
    from accelerate import Accelerator  # seconds to import
    from accelerate.state import AcceleratorState

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("training.device is cuda, but torch sees no GPU. Set it to auto or cpu.")
    use_cpu = settings.device == "cpu" or not torch.cuda.is_available()
    if use_cpu and settings.precision == "fp16":
        raise ConfigError("training.precision fp16 needs a GPU. Set it to bf16 or no.")
    AcceleratorState._reset_state(True)  # it is a process-wide singleton: a former run's precision would stick
    return Accelerator(cpu=use_cpu, mixed_precision=settings.precision)


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
