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
        DataError: the file is damaged or not of this form.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        facts = json.loads(arrays.pop(_FACTS).tobytes())
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a file of arrays with facts ({error}). Build or convert it again.") from None
    if not isinstance(facts, dict):
        raise DataError(f"{path}: expected facts by name, found {facts!r}. Build or convert it again.")
    return arrays, facts
