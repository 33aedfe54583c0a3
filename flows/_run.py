"""What every stage shares: its command line, its settings, its tasks, and how it ends.

Run as `python -m flows.<product> <stage> --profile <profile>`; dvc.yaml has exactly these commands. Prefect talks
to the server named by PREFECT_API_URL when there is one (`make repro` starts one for the whole run), else it starts its
own for the life of the process. DVC decides what runs; Prefect runs it; neither caches for the other.
"""

import argparse
import functools
import hashlib
import inspect
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar, overload

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, wait
from prefect.logging.configuration import setup_logging
from prefect.task_runners import ThreadPoolTaskRunner

from ecavatar.config import Params, ProfileSettings, load_params
from ecavatar.errors import ConfigError, EcavatarError
from ecavatar.storage.files import atomic_path, clean_stale
from flows.paths import ProfilePaths

DONE, BUG, MISTAKE = 0, 1, 2
"""Exit codes: finished; a defect of ours; something the user can put right."""

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


@dataclass(slots=True)
class _Options:
    params: Path = Path("params.yaml")
    workers: int = max(1, len(os.sched_getaffinity(0)))


_options = _Options()  # set once by `main`; flows called from Python run with the defaults


# --- what flows use ------------------------------------------------------------------------------------------------


def params() -> Params:
    """All of params.yaml (or of the file given by --params).

    Raises:
        AssetMissingError, ConfigError: see `ecavatar.config.load_params`.
    """
    return load_params(_options.params)


def stage_settings(profile: str) -> ProfileSettings:
    """The sections of `profile`; a stage reads only its own, because dvc.yaml tracks only that one.

    Raises:
        AssetMissingError, ConfigError: see `ecavatar.config.load_params`.
    """
    return params().profile(profile)


def seed() -> int:
    """The one seed of params.yaml, from which `ecavatar.seeding.stream` derives all randomness."""
    return params().seed


def workers() -> int:
    """How many tasks run at once (--workers; by default the processors this process may use). Never changes bytes."""
    return _options.workers


def _retry_unless_mistake(_task: Task, _run: TaskRun, state: State) -> bool:
    failure = state.result(raise_on_failure=False)
    return not isinstance(failure, EcavatarError)  # the same wrong input fails again


@overload
def shard_task(function: Callable[Parameters, Result]) -> Task[Parameters, Result]: ...


@overload
def shard_task(*, name: str) -> Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]: ...


def shard_task(
    function: Callable[Parameters, Result] | None = None, *, name: str | None = None
) -> Task[Parameters, Result] | Callable[[Callable[Parameters, Result]], Task[Parameters, Result]]:
    """Decorator of a task that makes one shard: `@shard_task` or `@shard_task(name=...)`.

    Only paths and small values cross its border, never tensors. It is tried twice, unless the user made a mistake.
    """
    if function is None:
        return functools.partial(_as_task, name=name)
    return _as_task(function, name=name)


def _as_task(function: Callable[Parameters, Result], name: str | None) -> Task[Parameters, Result]:
    return Task(
        function,
        name=name,
        cache_policy=NO_CACHE,  # DVC owns caching; Prefect's key would hash a path's name, not its content
        persist_result=False,
        retries=1,
        retry_condition_fn=_retry_unless_mistake,
    )


def wait_all(futures: Iterable[PrefectFuture[Result]]) -> list[Result]:
    """Results of all tasks, in the order given, once all have ended.

    Raises:
        Exception: the error of the first task, in the order given, that failed.
    """
    started = list(futures)
    wait(started)
    return [future.result() for future in started]


def refuse_inside_stage() -> None:
    """Stop when this process was started by a DVC stage; call before starting dvc.

    Raises:
        ConfigError: dvc would write dvc.lock while the outer dvc does.
    """
    stage = os.environ.get("DVC_STAGE")
    if stage:
        raise ConfigError(
            f"refused to run dvc inside the DVC stage {stage!r}: two runs would write dvc.lock. Run dvc from a shell."
        )


# --- what a killed attempt leaves -------------------------------------------------------------------------------------

RESUMED: Mapping[str, Callable[[ProfilePaths], Path]] = {
    "reconstruct_faces": lambda paths: paths.faces,
    "train_selftalk": lambda paths: paths.checkpoints,
    "train_funet": lambda paths: paths.checkpoints,
}
"""Stages that go on where a killed attempt stopped, and the directory with its unfinished work."""


def forget_outdated_attempts(stage: str, profile: str, root: Path = Path()) -> None:
    """Drop unfinished work that other code made: a shard's or checkpoint's hash covers data and settings, not code.

    Half-written temporaries go in any case. The code of the last attempt is remembered in .cache/, outside all outputs,
    so that an edit which changes no result changes no byte.
    """
    if stage not in RESUMED:
        return
    directory = root / RESUMED[stage](ProfilePaths(profile))
    record = root / ".cache" / "attempts" / f"{stage}@{profile}"
    code = source_fingerprint()
    if not record.is_file() or record.read_text() != code:
        shutil.rmtree(directory, ignore_errors=True)
        with atomic_path(record) as temporary:
            temporary.write_text(code)
    for part in [directory, *(path for path in directory.rglob("*") if path.is_dir())]:
        clean_stale(part)


def source_fingerprint() -> str:
    """A hash of all code of ours and of the pinned versions of all code of others."""
    root = Path(__file__).resolve().parent.parent
    files = [path for room in ("ecavatar", "flows") for path in (root / room).rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted([*files, *root.glob("requirements*.lock")]):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


# --- command line --------------------------------------------------------------------------------------------------


def main(*flows: Flow) -> None:
    """Run the stage named on the command line and exit: 0 done, 2 the user's mistake, 1 a bug.

    A further parameter `x` of a flow becomes the option --x of its stage. A flow may return one line of text about what
    it made; it is printed when the stage closes.
    """
    sys.exit(run(flows, sys.argv[1:]))


def run(flows: Sequence[Flow], arguments: Sequence[str]) -> int:
    """As `main`, for given arguments, and returning the exit code."""
    options = vars(_parser(flows).parse_args(arguments))
    stage = options.pop("stage")
    flow = next(flow for flow in flows if flow.name == stage)
    _options.params, _options.workers = options.pop("params"), options.pop("workers")
    label = " ".join(
        [f"{flow.name}@{options['profile']}", *(str(v) for k, v in options.items() if k != "profile" and v)]
    )
    return guarded(functools.partial(_run_stage, flow, label, options), label)


def guarded(work: Callable[[], None], label: str) -> int:
    """Do `work` and turn its end into an exit code; mistakes get one message, bugs their traceback."""
    try:
        work()
    except EcavatarError as error:
        print(f"error: {label}: {error}", file=sys.stderr, flush=True)
        return MISTAKE
    except KeyboardInterrupt:
        print(f"stopped: {label}: interrupted; run the same command again to go on.", file=sys.stderr, flush=True)
        return BUG
    except Exception as error:  # noqa: BLE001 - the outermost edge: report, then say so by the exit code
        mistake = _mistake_behind(error)
        if mistake is not None:
            print(f"error: {label}: {mistake}", file=sys.stderr, flush=True)
            return MISTAKE
        traceback.print_exc()
        print(f"bug: {label} failed unexpectedly; please report the lines above.", file=sys.stderr, flush=True)
        return BUG
    return DONE


def _run_stage(flow: Flow, label: str, options: dict[str, str]) -> None:
    _prepare_logging()
    params().profile(options["profile"])  # a wrong params.yaml is told before any server starts
    forget_outdated_attempts(flow.name, options["profile"])
    started = time.monotonic()
    print(f"{label}: started", flush=True)
    runner = ThreadPoolTaskRunner(max_workers=_options.workers)
    outcome = flow.with_options(task_runner=runner)(**options)  # pyright: ignore[reportArgumentType]
    about = f": {outcome}" if isinstance(outcome, str) else ""
    print(f"{label}: done in {time.monotonic() - started:.1f} s{about}", flush=True)


def _parser(flows: Sequence[Flow]) -> argparse.ArgumentParser:
    first = flows[0]
    module = Path(inspect.getfile(first.fn)).stem
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--profile", required=True, choices=("sample", "full"), help="which part of params.yaml and data/"
    )
    shared.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings file (default: %(default)s)")
    shared.add_argument(
        "--workers", type=_positive, default=_Options().workers, help="tasks at once; never changes bytes"
    )
    example = f"example: python -m flows.{module} {first.name} --profile sample{_example_options(first)}"
    parser = argparse.ArgumentParser(prog=f"python -m flows.{module}", epilog=example)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for flow in flows:
        about = (inspect.getdoc(flow.fn) or flow.name).splitlines()[0]
        example = f"example: python -m flows.{module} {flow.name} --profile sample{_example_options(flow)}"
        stage = stages.add_parser(flow.name, parents=[shared], help=about, description=about, epilog=example)
        for name, parameter in _own_parameters(flow).items():
            required = parameter.default is inspect.Parameter.empty
            stage.add_argument(f"--{name}", required=required, default=None if required else parameter.default)
    return parser


def _own_parameters(flow: Flow) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in inspect.signature(flow.fn).parameters.items() if name != "profile"}


def _example_options(flow: Flow) -> str:
    return "".join(f" --{name} {name.upper()}" for name in _own_parameters(flow))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _mistake_behind(error: BaseException) -> EcavatarError | None:
    """The user's mistake that Prefect (and only Prefect) wrapped into its own error."""
    inner: BaseException | None = error
    while inner is not None and type(inner).__module__.startswith("prefect"):
        inner = inner.__cause__ or inner.__context__
    return inner if isinstance(inner, EcavatarError) else None


class _OneTelling(logging.Filter):
    """Keeps Prefect's own account of a failed run off the terminal; `guarded` tells it once (the server keeps both)."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.name.startswith(("prefect.flow_runs", "prefect.task_runs")) or record.levelno < logging.ERROR


def _prepare_logging() -> None:
    setup_logging()  # Prefect's, now rather than at the first run, so that the handlers below exist
    for handler in logging.getLogger().handlers:
        handler.addFilter(_OneTelling())
    console = logging.StreamHandler()
    console.setFormatter(logging.Formatter("%(message)s"))
    for name in ("ecavatar", "flows"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers, logger.propagate = [console], False
