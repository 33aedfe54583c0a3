"""A list of a directory's files with sizes and checksums, so that anyone can check a copy."""

from collections.abc import Mapping
from pathlib import Path

from ecavatar.errors import DataError, EcavatarError
from ecavatar.storage.files import is_temporary, read_json, resolve_inside, sha256_file, write_json

MANIFEST_NAME = "MANIFEST.json"


def write_manifest(directory: Path, facts: Mapping[str, object]) -> None:
    """Write MANIFEST.json: `facts` plus path, bytes and sha256 of every file below `directory`.

    Args:
        directory: everything in it is listed, the manifest itself apart.
        facts: json values about the whole (schema version, counts, topology, ...); no times, or bytes would change.

    Raises:
        DataError: `facts` has a key "files", or the directory does not exist.
    """
    if "files" in facts:
        raise DataError("manifest facts must not have the key 'files'; it holds the file list.")
    if not directory.is_dir():
        raise DataError(f"{directory} is not a directory, so no manifest can be written for it.")
    files = [
        {"path": name, "bytes": (directory / name).stat().st_size, "sha256": sha256_file(directory / name)}
        for name in _file_names(directory)
    ]
    write_json(directory / MANIFEST_NAME, {**facts, "files": files})


def verify_manifest(directory: Path) -> list[str]:
    """Every way in which `directory` differs from its manifest, one sentence each; empty when all is well."""
    try:
        listed = {entry["path"]: entry for entry in read_json(directory / MANIFEST_NAME)["files"]}
    except EcavatarError as error:
        return [str(error)]
    except (KeyError, TypeError):
        return [f"{directory / MANIFEST_NAME} has no list of files with path, bytes and sha256."]
    problems = [problem for name in sorted(listed) for problem in _compare(directory, name, listed[name])]
    extra = sorted(set(_file_names(directory)) - set(listed))
    return problems + [f"{name}: not listed in the manifest." for name in extra]


def _compare(directory: Path, name: str, entry: Mapping[str, object]) -> list[str]:
    try:
        path = resolve_inside(directory, name)
    except DataError as error:
        return [str(error)]
    if not path.is_file():
        return [f"{name}: missing."]
    if path.stat().st_size != entry.get("bytes"):
        return [f"{name}: {path.stat().st_size} bytes, the manifest says {entry.get('bytes')}."]
    if sha256_file(path) != entry.get("sha256"):
        return [f"{name}: content differs from its checksum."]
    return []


def _file_names(directory: Path) -> list[str]:
    found = (path for path in directory.rglob("*") if path.is_file() and not is_temporary(path.name))
    return sorted(name for path in found if (name := path.relative_to(directory).as_posix()) != MANIFEST_NAME)
