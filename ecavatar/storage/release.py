"""A numbered release: what was built, with its origin, and what it changes of the release before.

Beside the files that were built it holds

    release.json    version, and where it comes from (commit, hashes, settings, tools); no times
    CHANGES.md      what it changes of the release before, for people
    changes.json    the same in full
    MANIFEST.json   written anew, over all of these
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ecavatar.errors import ConfigError
from ecavatar.storage.changes import Changes, Compare
from ecavatar.storage.files import read_json, write_json
from ecavatar.storage.manifest import MANIFEST_NAME, write_manifest
from ecavatar.storage.version import Version

RELEASE, CHANGES, CHANGES_JSON = "release.json", "CHANGES.md", "changes.json"
RELEASE_FILES = (RELEASE, CHANGES, CHANGES_JSON)
"""What a numbered release holds beside what was built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """The release before."""

    version: Version
    directory: Path
    """With what comparing reads at least."""


def assemble_release(
    built: Path,
    out: Path,
    *,
    name: str,
    version: Version,
    origin: Mapping[str, object],
    previous: Previous | None,
    compare: Compare,
) -> Changes | None:
    """Fill the folder `out` with the release `version` and return what it changes; None for a first release.

    Args:
        built: a verified release as the pipeline writes it.
        out: made by this; must not exist.
        name: of the product, such as emolib.
        version: higher than the previous one.
        origin: json values for release.json that say where the release comes from.
        previous: the release before, or None.
        compare: of the product.

    Raises:
        AssetMissingError, DataError: from `compare`; one of the two is no release, or damaged.
        ConfigError: `version` promises to fit what was made for the previous release, and cannot.
    """
    changes = None if previous is None else compare(previous.directory, built)
    if previous is not None and changes is not None:
        _require_major(version, previous.version, changes)
    shutil.copytree(built, out, copy_function=shutil.copyfile)  # content alone: what DVC links is read-only
    before = None if previous is None else str(previous.version)
    write_json(out / RELEASE, {**origin, "name": name, "version": str(version), "previous": before})
    write_json(out / CHANGES_JSON, {"previous": before, "changes": None if changes is None else changes.to_json()})
    text = "# First release\n" if changes is None else changes.as_markdown(str(before), str(version))
    (out / CHANGES).write_text(text, encoding="utf-8")
    facts = {name: value for name, value in read_json(built / MANIFEST_NAME).items() if name != "files"}
    write_manifest(out, facts | {"version": str(version)})
    return changes


def _require_major(version: Version, previous: Version, changes: Changes) -> None:
    if changes.breaking and not version.may_break(previous):
        reasons = "\n".join(f"  {reason}" for reason in changes.breaking)
        following = f"0.{previous.minor + 1}.0" if previous.major == version.major == 0 else f"{previous.major + 1}.0.0"
        raise ConfigError(f"version {version} would break those who use {previous}:\n{reasons}\nCall it {following}.")
