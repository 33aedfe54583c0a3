"""`make repro`: check the inputs, run the pipeline with one Prefect server, show the numbers.

    python -m flows.repro              everything that dvc.yaml declares
    python -m flows.repro benchmark    one stage and what it needs, for every profile
    python -m flows.repro --studies    only the extra studies of params.yaml

Plain `dvc repro` gives the same bytes; it starts a Prefect server anew for each stage.
"""

import argparse
import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ecavatar.assets import missing_for_full
from ecavatar.config import Params
from ecavatar.errors import AssetMissingError, ConfigError, EcavatarError
from ecavatar.storage.files import read_json, write_json
from flows._run import guarded, params, refuse_inside_stage
from flows._server import local_server
from flows.paths import ProfilePaths

_UNIT = 1e-5  # m^2; the unit in which the field prints squared vertex errors
_STOP_SECONDS = 20.0


class PipelineError(EcavatarError, RuntimeError):
    """A stage failed; its own message stands above."""


def main() -> None:
    """Run the pipeline and exit: 0 done, 2 something the user can put right, 1 a bug."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.repro",
        description="Rebuild what is out of date and print the metrics.",
        epilog="example: python -m flows.repro",
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="stages to bring up to date (default: all)")
    parser.add_argument("--studies", action="store_true", help="run the studies listed in params.yaml, nothing else")
    options = parser.parse_args()
    sys.exit(guarded(functools.partial(reproduce, options.stages, studies=options.studies), "repro"))


def reproduce(stages: Sequence[str] = (), *, studies: bool = False) -> None:
    """Check inputs, run what is out of date, print metrics and the reports' paths.

    Raises:
        ConfigError: params.yaml is wrong, a stage is unknown, or this was started inside a DVC stage.
        AssetMissingError: a profile lacks files that only the user can supply; nothing was started.
        PipelineError: a stage failed.
    """
    refuse_inside_stage()
    settings = params()
    check_inputs(settings)
    targets = study_stages(settings) if studies else targets_of(stages)
    if studies and not targets:
        print("no studies: the list `studies` in params.yaml is empty.")
        return
    if _dvc("status", "--quiet", *targets) == 0:
        print("everything is up to date; nothing was run.")
    else:
        run_pipeline(targets)
    for profile in settings.profiles:
        show(ProfilePaths(profile))


def check_inputs(settings: Params) -> None:
    """Make sure that every file which no stage makes is there, before anything starts.

    Raises:
        AssetMissingError: names each missing file, who grants it, and the command that adds it.
    """
    if "full" not in settings.profiles:
        return
    paths = ProfilePaths("full")
    missing = missing_for_full(paths.data, settings.full.reconstruct.backend)
    if missing:
        lines = "\n".join(f"  {asset.kind}: {asset.how_to_add(paths.data)}" for asset in missing)
        raise AssetMissingError(
            f"profile full needs {len(missing)} input(s) that are not there:\n{lines}\n"
            "`ecavatar assets list` shows what each is for. The sample profile needs none: set `profiles: [sample]`."
        )
    # No truth is held back in the real world, and published speech models bring no figures of ours; the stages that
    # read these two find them empty.
    if not paths.truth.is_dir():
        paths.truth.mkdir(parents=True)
    if not paths.speech_figures.is_file():
        write_json(paths.speech_figures, {})


def targets_of(stages: Sequence[str]) -> list[str]:
    """Names of dvc.yaml's stages that are instances of `stages`: `predict` -> predict@sample-neutral, ...

    Raises:
        ConfigError: dvc.yaml has no such stage.
    """
    names = _output("stage", "list", "--name-only").split() if stages else []
    targets = []
    for stage in stages:
        found = [name for name in names if stage in (name, name.split("@")[0])]
        if not found:
            known = ", ".join(dict.fromkeys(name.split("@")[0] for name in names))
            raise ConfigError(f"dvc.yaml has no stage {stage!r}; it has: {known}.")
        targets += found
    return targets


def study_stages(settings: Params) -> list[str]:
    """Names of dvc.yaml's stages that belong to the listed studies.

    Raises:
        ConfigError: a listed study has no stage.
    """
    listing = _output("stage", "list", "--name-only")
    names = [name for name in listing.split() if name.startswith("study@")]
    unknown = [study for study in settings.studies if not any(name.endswith(f"-{study}") for name in names)]
    if unknown:
        raise ConfigError(f"params.yaml lists studies that dvc.yaml does not have: {', '.join(unknown)}. Remove them.")
    return names


def run_pipeline(targets: Sequence[str] = ()) -> None:
    """`dvc repro` with one Prefect server, the user's own (PREFECT_API_URL) or one for this run.

    Raises:
        PipelineError: a stage failed.
    """
    own = os.environ.get("PREFECT_API_URL")
    with contextlib.nullcontext(own) if own else local_server() as api:
        print(f"watch the run at {api.removesuffix('/api')}", flush=True)
        code = _dvc("repro", *targets, environment={"PREFECT_API_URL": api})
    if code:
        raise PipelineError("a stage failed; its message stands above. Put it right and run the same command again.")


def show(paths: ProfilePaths) -> None:
    """Print the metrics table of one profile and where its report lies."""
    if not paths.metrics.is_file():
        return
    console = Console()
    console.print(metrics_table(paths.profile, read_json(paths.metrics)))
    console.print(f"report: {paths.report.resolve()}", soft_wrap=True)


def metrics_table(profile: str, metrics: Mapping[str, Any]) -> Table:  # Any: json
    """Errors of every method (rows) on every corpus (columns) with their 95 % intervals."""
    errors = metrics["errors"]
    columns = [(corpus, metric) for corpus in errors for metric in ("lve_m2", "eve_m2") if _has(errors[corpus], metric)]
    table = Table(title=f"{profile}: squared vertex errors in 1e-5 m² (95 % interval), lower is better")
    table.add_column("method")
    for corpus, metric in columns:
        table.add_column(f"{corpus}\n{metric.removesuffix('_m2').upper()}", justify="right")
    for method in dict.fromkeys(method for corpus in errors.values() for method in corpus):
        table.add_row(method, *(_cell(errors[corpus].get(method, {}).get(metric)) for corpus, metric in columns))
    return table


def _has(corpus: Mapping[str, Any], metric: str) -> bool:
    return any(metric in scores for scores in corpus.values())


def _cell(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "-"
    mean, low, high = (score[key] / _UNIT for key in ("mean", "ci95_low", "ci95_high"))
    return f"{mean:.3g} ({low:.3g} to {high:.3g})"


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The stages' `python` is the one that runs this, whether or not its environment was activated."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", **extra}


def _output(*arguments: str) -> str:
    done = subprocess.run(_command(*arguments), env=_environment({}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise PipelineError(f"`dvc {' '.join(arguments)}` failed:\n{done.stderr.strip()}")
    return done.stdout


def _dvc(*arguments: str, environment: Mapping[str, str] | None = None) -> int:
    """Exit code of a dvc command that ends with us: its stages too when we are interrupted or told to stop."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    process = subprocess.Popen(_command(*arguments), env=_environment(environment or {}), start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        _stop_group(process)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_STOP_SECONDS)
            return


if __name__ == "__main__":
    main()
