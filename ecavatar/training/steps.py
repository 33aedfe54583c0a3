"""Which items make up each step of the optimiser, in which batches, and how much each batch counts.

A step sees `batch` items times the batches accumulated times the processes. Its items depend on their number, the seed
and the epoch alone, so one batch of eight, two processes with four each, and eight accumulated batches of one take
the same steps.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from ecavatar.seeding import stream

_POOL = 16  # steps whose items are sorted together: large enough to find like lengths, small enough to stay random
Step = list[list[int]]
"""The batches of one step of the optimiser."""
Shares = Mapping[str, float]
"""What part of the step's loss is this batch's, by the name of the loss; under "" for all others."""


@runtime_checkable
class HasLengths(Protocol):
    """An objective whose items can be put together by length."""

    def lengths(self) -> Sequence[int]:
        """Length of every training item, in frames."""
        ...


@runtime_checkable
class HasWeights(Protocol):
    """An objective whose losses are means over something else than items."""

    def weight(self, items: Sequence[int]) -> float | Mapping[str, float]:
        """What the losses of a batch of these items are means over: their number of valid frames, for instance.

        One number for all losses, or one for each loss by name, where means are taken over different things; losses
        that are not named count by items. Without `HasTotal`, what is minimised counts by the weight named `loss`.
        """
        ...


@runtime_checkable
class HasTotal(Protocol):
    """An objective that says how its losses make up `loss`."""

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """What is minimised, from the other losses; linear in them."""
        ...


def plan_epoch(
    items: int, seed: int, name: str, epoch: int, *, batch: int, batches: int, lengths: Sequence[int] | None = None
) -> list[Step]:
    """The steps of one epoch; every item comes once.

    Args:
        items: in the training set.
        seed: of params.yaml.
        name: of the objective.
        epoch: from 0.
        batch: items of one batch.
        batches: of one step, all processes together.
        lengths: of the items, to put items of like length into one step; None: any order.
    """
    order = stream(seed, name, "epoch", epoch).permutation(items)
    size = batch * batches
    if lengths is None:
        groups = [order[first : first + size] for first in range(0, items, size)]
    else:
        groups = _like_lengths(order, np.asarray(lengths), size)
        turn = stream(seed, name, "bucket", epoch).permutation(len(groups))
        groups = [groups[index] for index in turn]
    return [[group[first : first + batch].tolist() for first in range(0, len(group), batch)] for group in groups]


def shares_of(objective: object, step: Step) -> list[Shares]:
    """How much each batch of a step counts, so that the step's gradient is that of one batch of all its items."""
    if len(step) == 1:
        return [{"": 1.0}]
    weights = [_weights(objective, items) for items in step]
    totals = {name: sum(weight[name] for weight in weights) for name in weights[0]}
    return [{name: weight[name] / totals[name] if totals[name] else 0.0 for name in totals} for weight in weights]


def _weights(objective: object, items: Sequence[int]) -> dict[str, float]:
    if not isinstance(objective, HasWeights):
        return {"": float(len(items))}
    weight = objective.weight(items)
    return {"": float(len(items)), **weight} if isinstance(weight, Mapping) else {"": float(weight)}


def _like_lengths(order: np.ndarray, lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Groups of neighbours by length within every `_POOL` groups of the random order."""
    groups = []
    for first in range(0, len(order), _POOL * size):
        pool = order[first : first + _POOL * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        groups += [pool[start : start + size] for start in range(0, len(pool), size)]
    return groups
