"""VOCASET with a mouth: `python -m flows.vocateeth rig_mouths --profile sample`."""

from prefect import flow

from ecavatar.corpora.vocaset import Vocaset
from ecavatar.corpora.vocaset_checks import check_frame_rate, check_frames, check_templates
from ecavatar.face.model import FaceAsset
from ecavatar.mouth.source import open_mouth
from ecavatar.vocateeth.build import clear_leftovers, finish_vocateeth, write_subject
from flows._run import main, shard_task, stage_settings, wait_all
from flows.paths import ProfilePaths


@shard_task(name="rig_subject")
def rig_subject(profile: str, subject: str) -> bool:
    """One subject's frames, angles, mouth and sound; False when they were there already."""
    paths, settings = ProfilePaths(profile), stage_settings(profile).rig
    asset, vocaset = FaceAsset.load(paths.face_model), Vocaset.open(paths.vocaset)
    return write_subject(paths.vocateeth, vocaset, subject, asset, open_mouth(settings.mouth), settings)


@flow(name="rig_mouths")
def rig_mouths(profile: str) -> str:
    """Put a mouth and its jaw angle into every VOCASET face: the VOCATeeth dataset."""
    paths, settings = ProfilePaths(profile), stage_settings(profile).rig
    asset, vocaset, mouth = FaceAsset.load(paths.face_model), Vocaset.open(paths.vocaset), open_mouth(settings.mouth)
    check_templates(vocaset, asset)
    check_frames(vocaset, asset)
    check_frame_rate(vocaset)
    subjects = clear_leftovers(paths.vocateeth, vocaset)
    wait_all([rig_subject.submit(profile, subject) for subject in subjects])
    counts = finish_vocateeth(paths.vocateeth, vocaset, asset, mouth, settings)
    return ", ".join(f"{count} {name}" for name, count in counts.items())


if __name__ == "__main__":
    main(rig_mouths)
