"""Named arrays and a few facts in one npz file without objects; the same content gives the same bytes every time."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecavatar.errors import DataError
from ecavatar.storage.files import atomic_path
from ecavatar.storage.unpickle import load_npz

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # a fixed date: DVC hashes bytes
_FACTS = "facts"


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:  # Any: json values
    """Write arrays (none of objects) and facts (json values), whole or not at all.

    Raises:
        DataError: an array is called `facts`.
    """
    if _FACTS in arrays:
        raise DataError(f"{path}: no array may be called {_FACTS!r}; that name holds the facts.")
    encoded = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), dtype=np.uint8)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted([*arrays.items(), (_FACTS, encoded)]):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE), buffer.getvalue())


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:  # Any: json values
    """Arrays and facts of a file that `write_arrays` wrote.

    Raises:
        AssetMissingError: the file is not there.
        DataError: the file is damaged, hostile (see `load_npz`) or not of this form.
    """
    arrays = load_npz(path)
    if objects := [name for name, array in arrays.items() if array.dtype.kind not in "biufU"]:
        raise DataError(f"{path}: {objects[0]} holds no numbers. Build or convert it again.")
    try:
        facts = json.loads(arrays.pop(_FACTS).tobytes())
    except (ValueError, KeyError, RecursionError) as error:
        raise DataError(f"{path} is not a file of arrays with facts ({error!r}). Build or convert it again.") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path}: expected facts by name, found {facts!r}. Build or convert it again.")
    return arrays, facts
