"""VOCASET with a jaw angle: `python -m flows.vocateeth rig_mouths --profile sample`."""

from prefect import flow

from ecavatar.corpora.vocaset import Vocaset
from ecavatar.face.model import FaceAsset
from ecavatar.storage.files import clean_stale
from ecavatar.storage.shards import shard_path
from ecavatar.vocateeth.dataset import finish_vocateeth, subjects_of, write_subject
from flows._run import main, shard_task, stage_settings, wait_all
from flows.paths import ProfilePaths


@shard_task(name="rig_subject")
def rig_subject(profile: str, subject: str) -> bool:
    """One subject's frames and angles; False when they were there already."""
    paths = ProfilePaths(profile)
    asset, vocaset = FaceAsset.load(paths.face_model), Vocaset.open(paths.vocaset)
    return write_subject(paths.vocateeth, vocaset, subject, asset, stage_settings(profile).rig)


@flow(name="rig_mouths")
def rig_mouths(profile: str) -> str:
    """Put a jaw angle beside every VOCASET face: the VOCATeeth dataset."""
    paths = ProfilePaths(profile)
    asset, vocaset = FaceAsset.load(paths.face_model), Vocaset.open(paths.vocaset)
    subjects = subjects_of(vocaset)
    parts = {shard_path(paths.vocateeth, index, len(subjects)).name for index in range(len(subjects))}
    clean_stale(paths.vocateeth, parts)
    wait_all([rig_subject.submit(profile, subject) for subject in subjects])
    counts = finish_vocateeth(paths.vocateeth, vocaset, asset, stage_settings(profile).rig)
    return ", ".join(f"{count} {name}" for name, count in counts.items())


if __name__ == "__main__":
    main(rig_mouths)
