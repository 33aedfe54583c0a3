"""A full disk told as what it is: a mistake that the user can mend, not a bug."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from ecavatar.errors import DataError


@contextlib.contextmanager
def full_disk_told(place: Path, *, kept: str, advice: str) -> Iterator[None]:
    """Turn running out of space inside the block into a `DataError`; other errors pass.

    Args:
        place: what was being written.
        kept: what is left there now.
        advice: what to do about it.

    Raises:
        DataError: the disk, or what may be used of it, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(f"no space left on the disk while writing {place} ({error}); {kept}. {advice}") from None
