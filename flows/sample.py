"""The sample world and its speech models: `python -m flows.sample <stage> --profile sample`."""

from typing import Any

from prefect import flow

from ecavatar.errors import ConfigError
from ecavatar.face.model import FaceAsset
from ecavatar.sample.corpora import CorporaBuild, CorporaPaths, Part, write_sample_corpora
from ecavatar.sample.head import write_open_head
from ecavatar.sample.speech_models import make_speech_models as write_speech_models
from flows._run import main, seed, shard_task, stage_settings, wait_all
from flows.paths import ProfilePaths


@flow(name="make_corpora")
def make_corpora(profile: str) -> str:
    """Build the open head, and the sample world's AffectNet, VOCASET, RAVDESS and MEAD."""
    settings = stage_settings(profile).corpora
    if settings is None:
        raise ConfigError(f"profile {profile!r} has no section corpora: it reads your own corpora and makes none.")
    paths = ProfilePaths(profile)
    write_open_head(paths.face_model)
    out = CorporaPaths(
        affectnet=paths.affectnet, vocaset=paths.vocaset, ravdess=paths.ravdess, mead=paths.mead, truth=paths.truth
    )
    return write_sample_corpora(FaceAsset.load(paths.face_model), settings, seed(), out, _make_parts_in_parallel)


def _make_parts_in_parallel(build: CorporaBuild) -> list[tuple[Part, Any]]:
    parts = build.parts
    made = wait_all([make_part.submit(build, part) for part in parts])
    return list(zip(parts, made, strict=True))


@shard_task(name="make_part")
def make_part(build: CorporaBuild, part: Part) -> Any:  # see CorporaBuild.make
    """Make one part of the corpora."""
    return build.make(part)


@flow(name="make_speech_models")
def make_speech_models(profile: str) -> None:
    """Train the stand-ins for HuBERT, wav2vec2 and emotion2vec."""
    settings = stage_settings(profile).speech_models
    if settings is None:
        raise ConfigError(f"profile {profile!r} has no section speech_models: it loads published models.")
    paths = ProfilePaths(profile)
    write_speech_models(settings, seed(), paths.hubert, paths.wav2vec2, paths.emotion2vec, paths.speech_figures)


if __name__ == "__main__":
    main(make_corpora, make_speech_models)
