"""Studies, run by `make studies`: `python -m flows.studies study --profile sample --study mouth`."""

from prefect import flow

from ecavatar.config import STUDIES
from ecavatar.corpora.vocaset import Vocaset
from ecavatar.errors import ConfigError
from ecavatar.evaluation.mouth_findings import write_mouth_study
from ecavatar.evaluation.mouth_study import jaw_truth, mouth_study
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.source import open_mouth
from flows._run import main, seed, shard_task, stage_settings
from flows.paths import ProfilePaths


@shard_task(name="study_mouth")
def _mouth(profile: str) -> str:
    paths, settings = ProfilePaths(profile), stage_settings(profile).rig
    found = mouth_study(
        Vocaset.open(paths.vocaset),
        FaceAsset.load(paths.face_model),
        open_mouth(settings.mouth),
        jaw_truth(paths.truth / "vocaset.parquet", settings.fps),
        settings,
        seed(),
    )
    write_mouth_study(paths.study("mouth"), found)
    return f"{len(found.clips)} rows; {found.verdict}"


@flow(name="study")
def study(profile: str, study: str) -> str:
    """Run one of the studies that params.yaml lists."""
    if study not in STUDIES:
        raise ConfigError(f"unknown study {study!r}; expected one of: {', '.join(STUDIES)}. Put `studies` right.")
    return _mouth.submit(profile).result()


if __name__ == "__main__":
    main(study)
