"""Where releases lie: a local folder, or any address that fsspec knows (s3://, gs://, ssh://, memory://, ...).

A release is the folder `<name>-<version>`, and it is there once its MANIFEST.json is. Into a local folder it comes
under a temporary name and is renamed, so it is there whole or not at all. Object stores cannot rename a folder: the
manifest is uploaded last, after the size of every other file was checked, so a failed upload leaves files without a
manifest, which nothing takes for a release and which the next attempt replaces. Releases are never overwritten. Two
attempts at the same moment to upload one version are not kept apart.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ecavatar.errors import AssetMissingError, ConfigError, DataError, EcavatarError, MissingDependencyError
from ecavatar.storage.files import atomic_path, resolve_inside
from ecavatar.storage.manifest import MANIFEST_NAME
from ecavatar.storage.version import Version

Uploads = Sequence[tuple[Path, str]]
"""Local files, and the full addresses they go to."""


class ShelfError(EcavatarError, OSError):
    """The place where releases lie could not be read or written."""


def upload_file(source: Path, address: str) -> None:
    """Copy a local file to an address.

    Raises:
        OSError: whatever the store reports.
    """
    system, path = url_to_fs(address)
    system.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
    system.put_file(str(source), path)


def upload_files(uploads: Uploads) -> None:
    """`upload_file` one after the other."""
    for source, address in uploads:
        upload_file(source, address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """A place with releases, see `open_shelf`."""

    address: str
    system: fsspec.AbstractFileSystem
    root: str

    @property
    def is_local(self) -> bool:
        return isinstance(self.system, LocalFileSystem)

    def versions(self, name: str) -> list[Version]:
        """Versions of `name` that are complete, ascending; none where the place does not exist yet.

        Raises:
            ShelfError: the place cannot be read.
        """
        try:
            self.system.invalidate_cache()
            entries = self.system.ls(self.root, detail=False) if self.system.exists(self.root) else []
            names = [PurePosixPath(str(entry).rstrip("/")).name for entry in entries]
            found = [version for entry in names if (version := _version(entry, name)) is not None]
            return sorted(version for version in found if self._is_complete(f"{name}-{version}"))
        except OSError as error:
            raise self._unreachable(error) from error

    def holds(self, folder: str) -> bool:
        """Whether the release `folder` is there, complete."""
        try:
            return self._is_complete(folder)
        except OSError as error:
            raise self._unreachable(error) from error

    def fetch(self, folder: str, wanted: tuple[str, ...], out: Path) -> None:
        """Copy some files of the release `folder` into the folder `out`.

        Args:
            folder: `<name>-<version>`.
            wanted: beginnings of their paths in the release, such as `meta/`.
            out: gets them under the same paths.

        Raises:
            AssetMissingError: no complete release of that name.
            DataError: it has a file name that leads out of it.
            ShelfError: the place cannot be read.
        """
        if not self.holds(folder):
            raise AssetMissingError(f"no release {folder} in {self.address}; see what is there, and name one.")
        try:
            base = self._path(folder)
            for path in self.system.find(base):
                name = str(path)[len(base) :].lstrip("/")
                if name.startswith(wanted):
                    local = resolve_inside(out, name)
                    local.parent.mkdir(parents=True, exist_ok=True)
                    self.system.get_file(path, str(local))
        except OSError as error:
            raise self._unreachable(error) from error

    def put(self, directory: Path, folder: str, upload: Callable[[Uploads], None] = upload_files) -> None:
        """Copy the release in `directory` here as `folder`.

        Args:
            directory: complete, with its manifest.
            folder: `<name>-<version>`.
            upload: copies many files to their addresses; local folders do not need it.

        Raises:
            DataError: a release of that name is here; releases are never overwritten.
            ShelfError: the copy failed; there is no manifest, so the same command can be run again.
        """
        if self.holds(folder) or (self.is_local and Path(self._path(folder)).exists()):
            raise DataError(
                f"{self.address} has {folder} already, and releases are never overwritten. Raise the version."
            )
        try:
            if self.is_local:
                with atomic_path(Path(self._path(folder))) as temporary:
                    shutil.copytree(directory, temporary, copy_function=shutil.copyfile)
            else:
                self._upload(directory, folder, upload)
        except OSError as error:
            raise ShelfError(
                f"copying {folder} to {self.address} failed ({error!r}); nothing there counts as a release. "
                "Put that right and run the same command again."
            ) from error

    def _upload(self, directory: Path, folder: str, upload: Callable[[Uploads], None]) -> None:
        if self.system.exists(self._path(folder)):  # of an attempt that failed: it has no manifest
            self.system.rm(self._path(folder), recursive=True)
        names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
        names.remove(MANIFEST_NAME)
        upload([(directory / name, self._address(f"{folder}/{name}")) for name in names])
        self.system.invalidate_cache()
        for name in names:
            expected, found = (
                (directory / name).stat().st_size,
                self.system.info(self._path(f"{folder}/{name}"))["size"],
            )
            if found != expected:
                raise OSError(f"{name} arrived with {found} of {expected} bytes")
        upload([(directory / MANIFEST_NAME, self._address(f"{folder}/{MANIFEST_NAME}"))])
        self.system.invalidate_cache()

    def _is_complete(self, folder: str) -> bool:
        return bool(self.system.exists(self._path(f"{folder}/{MANIFEST_NAME}")))

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _address(self, name: str) -> str:
        return self.system.unstrip_protocol(self._path(name))

    def _unreachable(self, error: OSError) -> ShelfError:
        return ShelfError(f"{self.address} cannot be read ({error!r}). Check the address and your access to it.")


def open_shelf(address: str) -> Shelf:
    """The place at `address`: a path or a URL.

    Raises:
        ConfigError: fsspec knows no such protocol, or the address is not one of it.
        MissingDependencyError: the package for its protocol is not installed.
    """
    try:
        system, root = url_to_fs(address)
    except ImportError as error:
        raise MissingDependencyError(f"{address} needs a package that is not installed: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{address!r} is no place for releases ({error}). Give a folder or an fsspec URL.") from None
    if isinstance(system, LocalFileSystem):
        root = str(Path(root).resolve())
    return Shelf(address=address, system=system, root=root)


def _version(entry: str, name: str) -> Version | None:
    if not entry.startswith(f"{name}-"):
        return None
    try:
        return Version.parse(entry.removeprefix(f"{name}-"))
    except ConfigError:  # another folder of somebody's
        return None
