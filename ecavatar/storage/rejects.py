"""Bad records are set aside with a reason and counted; too many of them stop the stage."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ecavatar.errors import DataError
from ecavatar.storage.parquet import read_table, write_table

COLUMNS = ("item_id", "stage", "reason", "detail")


@dataclass(frozen=True, slots=True, order=True)
class Reject:
    """One record that was left out."""

    item_id: str
    """Which record, as the corpus or the stage names it."""
    stage: str
    """Stage that left it out."""
    reason: str
    """Short and countable: the same for all records with the same fault."""
    detail: str
    """What exactly was seen."""


def write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    """Write the rejects as Parquet, sorted, so that the order of work cannot change the bytes."""
    rows = [astuple(reject) for reject in sorted(rejects)]
    columns = {name: [row[index] for row in rows] for index, name in enumerate(COLUMNS)}
    write_table(path, pa.table(columns, schema=pa.schema([(name, pa.string()) for name in COLUMNS])))


def read_rejects(path: Path) -> pd.DataFrame:
    """The rejects in a file: columns item_id, stage, reason, detail.

    Raises:
        AssetMissingError: the file is not there.
        DataError: it is not a rejects table.
    """
    return read_table(path, COLUMNS).to_pandas()


def check_rejects(rejects: Sequence[Reject], total: int, max_share: float, stage: str) -> None:
    """Stop when more than `max_share` of `total` records were rejected.

    Raises:
        DataError: too many rejects; the message counts the reasons.
    """
    if total <= 0 or len(rejects) <= max_share * total:
        return
    counts = Counter(reject.reason for reject in rejects)
    reasons = "\n".join(
        f"  {count} x {reason}" for reason, count in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))
    )
    raise DataError(
        f"{stage}: {len(rejects)} of {total} records were rejected, more than the allowed share {max_share:g}:\n"
        f"{reasons}\n"
        f"First: {rejects[0].item_id}: {rejects[0].detail}\n"
        "Repair the input, or raise max_rejects in params.yaml on purpose."
    )
