"""Numbered releases of what dvc built: checked, compared with the release before, copied to where releases lie.

    python -m flows.release emolib --version 1.0.0                          into data/sample/releases
    python -m flows.release emolib --version 1.1.0 --profile full --to s3://bucket/emolib
    python -m flows.release vocateeth --version 1.0.0
    python -m flows.release vocateeth --version 1.0.0 --profile full --content free      no meshes, no voices

Not a stage: dvc decides what is built, people decide what is released. Whatever would make a release that cannot be
rebuilt, checked or passed on is refused: uncommitted changes, data that dvc.lock does not know, a failed verification,
a photograph or a subject in two splits, licensed content, a version that is no step up.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow, flow

from ecavatar.emolib.compare import compare as compare_emolib
from ecavatar.emolib.leaks import release_leaks as emolib_leaks
from ecavatar.emolib.licence import licence_problems as emolib_licence_problems
from ecavatar.emolib.schema import read_info
from ecavatar.emolib.verify import verify as verify_emolib
from ecavatar.errors import AssetMissingError, ConfigError, EcavatarError, SplitLeakError
from ecavatar.face.model import FaceAsset
from ecavatar.storage.changes import Changes, Compare
from ecavatar.storage.files import sha256_file
from ecavatar.storage.release import Previous, assemble_release
from ecavatar.storage.shelf import Shelf, Uploads, open_shelf, upload_file, upload_files
from ecavatar.storage.version import Version
from ecavatar.vocateeth.compare import COMPARED
from ecavatar.vocateeth.compare import compare as compare_vocateeth
from ecavatar.vocateeth.facts import read_facts
from ecavatar.vocateeth.facts import release_leaks as vocateeth_leaks
from ecavatar.vocateeth.licence import licence_problems as vocateeth_licence_problems
from ecavatar.vocateeth.licence import write_free
from ecavatar.vocateeth.verify import verify_vocateeth
from flows._run import refuse_inside_stage, run, shard_task, wait_all
from flows.paths import ProfilePaths

LOCK = Path("dvc.lock")
_DECIDES = re.compile(r"(ecavatar|flows)/.*|dvc\.(yaml|lock)|params\.yaml|requirements\.lock")
"""Files that decide what is built; they must be committed, so an untracked one counts as a change, too."""
_SHOWN = 10
_TOOLS = ("dvc", "ecavatar", "numpy", "pyarrow", "torch")


class ReleaseError(EcavatarError, RuntimeError):
    """What was built may not be released as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Something that dvc builds and people release."""

    name: str
    """Of its folder below data/PROFILE, and of its releases."""
    stage: str
    """Whose output it is."""
    compared: tuple[str, ...]
    """Beginnings of the paths that `compare` reads of the release before."""
    compare: Compare
    size: Callable[[Path], str]
    """How much it holds, in a few words."""
    leaks: Callable[[Path], list[str]]
    """Ways in which its splits are not apart."""
    mend_leaks: str
    """What to do about them; {profile} is filled in."""
    licence_problems: Callable[[Path], list[str]]
    mend_licence: str
    verify: Callable[[Path, FaceAsset | None], list[str]]
    write_free: Callable[[Path, Path], None] | None
    """Writes what may be passed on of a folder into a new one; None: settings of its stage leave the rest out."""


EMOLIB = Product(
    name="emolib",
    stage="export_emolib",
    compared=("meta/", "data/coefficients/"),
    compare=compare_emolib,
    size=lambda directory: f"{read_info(directory).total} items",
    leaks=emolib_leaks,
    mend_leaks="Select the images again: `dvc repro --force select_images@{profile}`.",
    licence_problems=emolib_licence_problems,
    mend_licence="Set export.vertices: none and export.images: false in params.yaml, and run `dvc repro`.",
    verify=verify_emolib,
    write_free=None,
)
VOCATEETH = Product(
    name="vocateeth",
    stage="rig_mouths",
    compared=COMPARED,
    compare=compare_vocateeth,
    size=lambda directory: f"{len(read_facts(directory).clips)} clips",
    leaks=vocateeth_leaks,
    mend_leaks="Correct the corpus and run `dvc repro --force rig_mouths@{profile}`.",
    licence_problems=vocateeth_licence_problems,
    mend_licence="Angles and fits without meshes and voices may be passed on: the same command with --content free.",
    verify=verify_vocateeth,
    write_free=write_free,
)


@flow(name="emolib")
def emolib(profile: str, version: str, to: str = "", previous: str = "", content: str = "") -> str:
    """Release the Emolib of a profile."""
    return release_product(EMOLIB, profile, version, to, previous, content, _upload_in_parallel)


@flow(name="vocateeth")
def vocateeth(profile: str, version: str, to: str = "", previous: str = "", content: str = "") -> str:
    """Release the VOCATeeth of a profile."""
    return release_product(VOCATEETH, profile, version, to, previous, content, _upload_in_parallel)


def release_product(
    product: Product,
    profile: str,
    version: str,
    to: str = "",
    previous: str = "",
    content: str = "",
    upload: Callable[[Uploads], None] = upload_files,
) -> str:
    """Copy data/<profile>/<product> as release `version` to `to` and return one line about it.

    Args:
        product: what to release.
        profile: sample or full.
        version: semantic version, higher than all that are there.
        to: folder or fsspec URL; empty: data/<profile>/releases.
        previous: folder or URL of the release to compare with; empty: the highest version that is there.
        content: `free`: only what may be passed on; empty: everything.
        upload: copies many files to addresses.

    Raises:
        EcavatarError: whatever forbids the release; nothing was written then.
    """
    refuse_inside_stage()
    paths, number = ProfilePaths(profile), Version.parse(version)
    write_free = _free_writer(product, content)
    built = paths.data / product.name
    shelf = open_shelf(to or (paths.data / "releases").as_posix())
    folder = f"{product.name}-{number}"
    if shelf.holds(folder):
        raise ConfigError(f"{shelf.address} has {folder} already; a release never changes. Raise the version.")
    before = _previous(product, shelf, number, previous)
    require_committed()
    stage = f"{product.stage}@{profile}"
    require_built(stage)
    if write_free is None:
        require_free(product, built)
    require_sound(product, built, FaceAsset.load(paths.face_model))
    with tempfile.TemporaryDirectory(dir=paths.data, prefix=".release-") as scratch:
        chosen, made = built, Path(scratch) / folder
        if write_free is not None:
            chosen = Path(scratch) / "free"
            write_free(built, chosen)
            require_free(product, chosen)
        changes = assemble_release(
            chosen,
            made,
            name=product.name,
            version=number,
            origin=origin(profile, stage, built),
            previous=_fetched(product, before, Path(scratch) / "previous"),
            compare=product.compare,
        )
        if problems := product.verify(made, None):
            raise ReleaseError(
                f"{folder} would not pass its own verification:\n{_listed(problems)}\nReport it as a bug."
            )
        shelf.put(made, folder, upload)
    return f"{folder} in {shelf.address}: {product.size(built)}, {_told(before, changes)}"


# --- what may be released -------------------------------------------------------------------------------------------


def require_committed() -> None:
    """Make sure that the commit says what made the data.

    Raises:
        ReleaseError: tracked files changed, a file that decides what is built is not tracked, or this is no git tree.
    """
    changed = []
    for line in _git("status", "--porcelain", "--untracked-files=all").splitlines():
        state, name = line[:2], line[3:].strip('"')
        if state != "??" or _DECIDES.fullmatch(name):
            changed.append(f"{state.strip()} {name}")
    if changed:
        raise ReleaseError(
            f"the git tree has {len(changed)} change(s) that no commit holds:\n{_listed(changed)}\n"
            "Commit or remove them (`git status`), so that the release names the code that made it."
        )
    if not _git("ls-files", LOCK.as_posix()).strip():
        raise ReleaseError(f"{LOCK} is not committed. Run `dvc repro`, then `git add {LOCK}` and commit it.")


def require_built(stage: str) -> None:
    """Make sure that the stage's outputs, and all they are made from, are those of dvc.lock.

    Raises:
        ReleaseError: something changed since, or dvc cannot tell.
    """
    done = _ran([sys.executable, "-m", "dvc", "status", "--json", "--with-deps", stage])
    if done.returncode:
        raise ReleaseError(f"`dvc status {stage}` failed:\n{done.stderr.strip()}")
    stale = json.loads(done.stdout or "{}")
    if stale:
        lines = [f"{name}: {'; '.join(_reasons(entries))}" for name, entries in sorted(stale.items())]
        raise ReleaseError(
            f"what lies in data/ is not what {LOCK} says:\n{_listed(lines)}\n"
            f"Run `dvc repro {stage}`, commit {LOCK}, and run the same command again."
        )


def require_sound(product: Product, built: Path, asset: FaceAsset) -> None:
    """Make sure that what was built keeps its splits apart and verifies.

    Raises:
        SplitLeakError: a photograph or a subject is in two splits.
        ReleaseError: verification failed.
        AssetMissingError, DataError: nothing there, or damaged.
    """
    if leaks := product.leaks(built):
        mend = product.mend_leaks.format(profile=built.parent.name)
        raise SplitLeakError(f"the splits of {built} leak:\n{_listed(leaks)}\n{mend}")
    if problems := product.verify(built, asset):
        raise ReleaseError(
            f"{built} does not pass `ecavatar verify`:\n{_listed(problems)}\nRemove it and run `dvc repro`."
        )


def require_free(product: Product, chosen: Path) -> None:
    """Make sure that what is to be released may be passed on.

    Raises:
        ReleaseError: it holds licensed content.
    """
    if problems := product.licence_problems(chosen):
        raise ReleaseError(f"{product.name} holds licensed content:\n{_listed(problems)}\n{product.mend_licence}")


def _free_writer(product: Product, content: str) -> Callable[[Path, Path], None] | None:
    """What leaves out what may not be passed on; None: nothing is left out."""
    if content not in ("", "free"):
        raise ConfigError(f"unknown content {content!r}; expected free, or nothing for everything.")
    if content and product.write_free is None:
        raise ConfigError(f"{product.name} has no --content free. {product.mend_licence}")
    return product.write_free if content else None


# --- versions ---------------------------------------------------------------------------------------------------------


def _previous(product: Product, shelf: Shelf, version: Version, given: str) -> tuple[Shelf, Version] | None:
    """The release to compare with and where it lies; None for the first release."""
    if given:
        address, _, folder = given.rstrip("/").rpartition("/")
        if not folder.startswith(f"{product.name}-"):
            raise ConfigError(f"--previous {given}: expected the folder {product.name}-VERSION of a release.")
        where, before = open_shelf(address or "."), Version.parse(folder.removeprefix(f"{product.name}-"))
    else:
        where, before = shelf, max(shelf.versions(product.name), default=None)
    if before is None:
        return None
    if version <= before:
        raise ConfigError(
            f"version {version} is not higher than {before}, which is in {where.address}. Raise it; or, to mend an "
            "older line, name that line's last release with --previous."
        )
    if not where.holds(f"{product.name}-{before}"):
        raise AssetMissingError(f"no release {product.name}-{before} in {where.address}; check --previous.")
    return where, before


def _fetched(product: Product, before: tuple[Shelf, Version] | None, scratch: Path) -> Previous | None:
    """What comparing needs of the release before, copied to `scratch`."""
    if before is None:
        return None
    where, version = before
    where.fetch(f"{product.name}-{version}", product.compared, scratch)
    return Previous(version=version, directory=scratch)


def _told(before: tuple[Shelf, Version] | None, changes: Changes | None) -> str:
    if before is None or changes is None:
        return "the first release"
    items = changes.items
    return f"{len(items.added)} added, {len(items.removed)} removed, {len(items.changed)} changed since {before[1]}"


# --- where it comes from ----------------------------------------------------------------------------------------------


def origin(profile: str, stage: str, built: Path) -> dict[str, object]:
    """What release.json says about where the release comes from; no times and no machine: equal work, equal bytes."""
    stages = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"]
    entry = stages[stage]
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    output = next(out for out in entry["outs"] if out["path"] == built.as_posix())
    return {
        "profile": profile,
        "git_commit": _git("rev-parse", "HEAD").strip(),
        "stage": stage,
        "dvc_lock": {"output_md5": output["md5"], "stage_sha256": hashlib.sha256(canonical.encode()).hexdigest()},
        "params": {name: stages[name]["params"] for name in sorted(_behind(stage, stages)) if "params" in stages[name]},
        "tools": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _TOOLS},
        "requirements_lock_sha256": _pins(),
    }


def _behind(stage: str, stages: Mapping[str, Any]) -> Iterator[str]:  # Any: dvc.lock
    """The stage and all whose outputs it is made from, each once."""
    makers = {out["path"]: name for name, entry in stages.items() for out in entry.get("outs", ())}
    waiting, seen = [stage], {stage}
    while waiting:
        name = waiting.pop()
        yield name
        new = {makers[dep["path"]] for dep in stages[name].get("deps", ()) if dep["path"] in makers} - seen
        seen |= new
        waiting += sorted(new)


def _pins() -> str | None:
    path = Path("requirements.lock")
    return sha256_file(path) if path.is_file() else None


# --- other programs ---------------------------------------------------------------------------------------------------


def _git(*arguments: str) -> str:
    done = _ran(["git", *arguments])
    if done.returncode:
        raise ReleaseError(
            f"`git {' '.join(arguments)}` failed: {done.stderr.strip()}. Releases are made in a git checkout."
        )
    return done.stdout


def _ran(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise AssetMissingError(f"the program {command[0]} was not found; install it.") from None


def _reasons(entries: Sequence[object]) -> Iterator[str]:
    """Why a stage is out of date, in dvc's words."""
    for entry in entries:
        if isinstance(entry, dict):
            for what, names in entry.items():
                detail = (
                    ", ".join(f"{name} ({how})" for name, how in names.items()) if isinstance(names, dict) else names
                )
                yield f"{what}: {detail}"
        else:
            yield str(entry)


def _listed(lines: Sequence[str]) -> str:
    more = [f"  ... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*(f"  {line}" for line in lines[:_SHOWN]), *more])


@shard_task(name="upload_file")
def _upload(source: Path, address: str) -> None:
    upload_file(source, address)


def _upload_in_parallel(uploads: Uploads) -> None:
    wait_all([_upload.submit(source, address) for source, address in uploads])


# --- command line -----------------------------------------------------------------------------------------------------


PRODUCTS: tuple[Flow, ...] = (emolib, vocateeth)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.release",
        description="Release what dvc built: checked, compared with the release before, copied whole or not at all.",
        epilog="example: python -m flows.release emolib --version 1.0.0 --to ../releases; "
        "or: python -m flows.release vocateeth --version 1.0.0",
    )
    parser.add_argument("product", choices=[product.name for product in PRODUCTS], help="what to release")
    parser.add_argument("--version", required=True, help="semantic version, higher than all that are there")
    parser.add_argument("--profile", default="sample", choices=("sample", "full"), help="default: %(default)s")
    parser.add_argument("--to", default="", help="folder or fsspec URL (default: data/PROFILE/releases)")
    parser.add_argument("--previous", default="", help="release to compare with (default: the highest that is there)")
    parser.add_argument("--content", choices=("free",), help="free: leave out what a licence forbids to pass on")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Release as the command line says and return the exit code: 0 done, 2 the user's mistake, 1 a bug."""
    options = vars(_parser().parse_args(arguments))
    product = options.pop("product")
    given = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    return run(PRODUCTS, [product, *given])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
