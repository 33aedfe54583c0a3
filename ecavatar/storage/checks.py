"""Checking what was written: every fault is a sentence, and damage of any kind is one, too, never an error."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import yaml

from ecavatar.errors import EcavatarError

T = TypeVar("T")
DAMAGE = (
    EcavatarError, OSError, EOFError, pa.ArrowException, ArithmeticError, AttributeError, LookupError, TypeError,
    ValueError, RecursionError, yaml.YAMLError,
)  # fmt: skip
"""What reading a damaged file can raise; anything else is a bug of ours and is not caught."""
_SHOWN = 3


def problems_of(check: Callable[[T], Iterator[str]], checked: T) -> list[str]:
    """The check's problems; when damage stops it, that is one more."""
    problems = []
    try:
        problems.extend(check(checked))
    except DAMAGE as error:
        what = getattr(check, "__name__", "a part").strip("_").replace("_", " ")
        problems.append(f"{what} cannot be checked: {type(error).__name__}: {error}")
    return problems


def is_finite(column: pa.ChunkedArray, *, may_be_unknown: bool = False) -> bool:
    """Whether no number is infinite and, unless they may be unknown, none is null or NaN."""
    values, is_complete = column.combine_chunks(), True
    while pa.types.is_fixed_size_list(values.type):
        is_complete = is_complete and values.null_count == 0
        values = values.flatten()
    numbers = values.to_numpy(zero_copy_only=False)  # null becomes NaN
    return not np.isinf(numbers).any() if may_be_unknown else is_complete and bool(np.isfinite(numbers).all())


def some(values: Sequence[object]) -> str:
    """The first few of the values, for a sentence."""
    return ", ".join(map(str, values[:_SHOWN])) + (", ..." if len(values) > _SHOWN else "")
