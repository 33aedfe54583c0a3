"""The `ecavatar` command line: a thin face of the library for people with their own files.

Exit codes: 0 done, 2 the user's mistake (one message, no traceback), 1 a bug.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ecavatar.assets import ASSETS, add_asset
from ecavatar.config import load_params
from ecavatar.doctor import Diagnosis, diagnose
from ecavatar.emotion import Emotion, LabelPair
from ecavatar.errors import ConfigError, EcavatarError

app = typer.Typer(
    help="Talking 3D faces with emotion from one photo and speech.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
assets_app = typer.Typer(help="Licensed and large files that you supply.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(assets_app, name="assets")

DataFolder = Annotated[Path, typer.Option("--data", help="Data folder of the profile that uses them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print json for programs.")]


@app.command(epilog="Example: ecavatar doctor --json")
def doctor(*, as_json: AsJson = False, data: DataFolder = Path("data/full")) -> None:
    """Say what is installed, which files are missing, what needs them and what works without."""
    diagnosis = diagnose(data)
    if as_json:
        print(json.dumps(diagnosis.to_json(), indent=1, sort_keys=True))
    else:
        _print_diagnosis(diagnosis)


@assets_app.command("list", epilog="Example: ecavatar assets list")
def list_assets(*, as_json: AsJson = False, data: DataFolder = Path("data/full")) -> None:
    """List every file you may supply: what it is, who grants it, where it belongs, what needs it."""
    diagnosis = diagnose(data)
    if as_json:
        print(json.dumps(diagnosis.to_json()["assets"], indent=1, sort_keys=True))
        return
    for asset in ASSETS:
        print(f"{asset.kind}: {'found' if asset.find(data) else 'missing'}, {data / asset.path}")
        print(f"    what        {asset.what}")
        print(f"    granted by  {asset.grantor}; {asset.licence}")
        print(f"    needed by   {asset.needed_by or 'nothing yet'}; without it: {asset.without}")
        print(f"    to add      {asset.how_to_add(data)}")


@assets_app.command("add", epilog="Example: ecavatar assets add hubert downloads/hubert-large-ls960-ft")
def add(
    kind: Annotated[str, typer.Argument(help="One of: " + ", ".join(asset.kind for asset in ASSETS) + ".")],
    file: Annotated[Path, typer.Argument(help="The file or folder as you obtained it.")],
    *,
    data: DataFolder = Path("data/full"),
) -> None:
    """Check a file or folder of yours and copy it to where the pipeline looks for it."""
    target = add_asset(kind, file, data)
    print(f"{kind}: added as {target}; fingerprint and licence are in {target.name}.asset.json beside it.")


@app.command(epilog="Example: ecavatar animate photo.png speech.wav --out clip.mp4 --emotion happy --level 3")
def animate(
    photo: Annotated[Path, typer.Argument(help="A picture with one clearly visible face.")],
    audio: Annotated[Path, typer.Argument(help="Speech: a sound file, or a film whose sound is used.")],
    *,
    out: Annotated[Path, typer.Option(help="The film to write (mp4).")],
    emotion: Annotated[
        str | None, typer.Option(help="Emotion to show; recognised from the speech if not given.")
    ] = None,
    level: Annotated[
        int | None, typer.Option(min=1, max=3, help="Its intensity; 2 if only the emotion is given.")
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="Edge of the square film in pixels.")] = 512,
    profile: Annotated[
        str, typer.Option(help="Whose models: data/<profile>, and its settings in params.yaml.")
    ] = "sample",
    params: Annotated[Path, typer.Option(help="Settings file.")] = Path("params.yaml"),
) -> None:
    """Let the face in a photo speak a recording, with emotion."""
    label = _label(emotion, level)
    if out.suffix != ".mp4" or size % 2:
        raise ConfigError(f"--out must end in .mp4 and --size be even; got {out} and {size}.")
    from ecavatar.animate import animate_files  # networks take seconds to import

    animation = animate_files(
        photo,
        audio,
        out,
        data=Path("data") / profile,
        settings=load_params(params).profile(profile),
        label=label,
        size_px=size,
    )
    shown = ", ".join(f"{w.emotion.label} {w.level}" for w in animation.track.windows)
    print(f"{out}: {len(animation.motion.vertices)} frames at {animation.motion.fps:g} fps; emotion: {shown}")


def _label(emotion: str | None, level: int | None) -> LabelPair | None:
    if emotion is None:
        if level is not None:
            raise ConfigError(
                "--level needs --emotion; without both, emotion and level are recognised from the speech."
            )
        return None
    return LabelPair(Emotion.from_label(emotion), 2 if level is None else level)


def main() -> None:
    """Run the command line and exit."""
    try:
        app()
    except EcavatarError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _print_diagnosis(diagnosis: Diagnosis) -> None:
    console = Console(soft_wrap=True, highlight=False)
    console.print("[bold]this machine[/bold]")
    for name, value in diagnosis.machine.items():
        console.print(f"  {name:<22} {value}", markup=False)
    console.print("[bold]packages[/bold]")
    for name, version in diagnosis.packages.items():
        console.print(f"  {name:<22} {version or 'missing: run `make setup`'}", markup=False)
    console.print("[bold]system libraries[/bold]")
    for name, fix in diagnosis.libraries.items():
        console.print(f"  {name:<22} {'found' if not fix else f'missing: {fix}'}", markup=False)
    console.print("[bold]files you may supply[/bold]")
    for state in diagnosis.assets:
        console.print(f"  {state.kind:<22} {state.sentence()}", markup=False)
    console.print("[bold]what can run[/bold]")
    for name, verdict in diagnosis.profiles().items():
        console.print(f"  {name:<22} {verdict}", markup=False)


if __name__ == "__main__":
    main()
