"""Two faces -> one: `python -m flows.funet <stage> --profile sample`."""

from prefect import flow

from ecavatar.storage.files import atomic_path
from ecavatar.training.funet import FuNetSources, fit_funet
from ecavatar.training.pairs import FacePool, draw_pairs, write_pairs
from ecavatar.vocateeth.dataset import VocaTeeth
from flows._run import main, seed, shard_task, stage_settings
from flows.paths import ProfilePaths


@flow(name="pair_faces")
def pair_faces(profile: str) -> str:
    """Pair lip-synchronised frames with emotional faces at random; only indices are stored."""
    paths = ProfilePaths(profile)
    teeth, pool = VocaTeeth.open(paths.vocateeth), FacePool.open(paths.faces / "pool")
    pairs = draw_pairs(teeth, pool.item_ids, stage_settings(profile).pairs, seed())
    with atomic_path(paths.pairs) as directory:
        directory.mkdir()
        write_pairs(directory, pairs, teeth)
    return ", ".join(f"{len(split)} {name} pairs of {len(set(split.item_ids))} faces" for name, split in pairs.items())


@shard_task(name="fit_funet")
def fit(profile: str) -> dict[str, float]:
    """Train the network; goes on from the checkpoint of a killed attempt."""
    paths = ProfilePaths(profile)
    sources = FuNetSources(
        face_model=paths.face_model, vocateeth=paths.vocateeth, pool=paths.faces / "pool", pairs=paths.pairs
    )
    return fit_funet(
        sources,
        stage_settings(profile).funet,
        seed(),
        out=paths.funet,
        curve=paths.training_curve("funet"),
        checkpoint=paths.checkpoints / "funet.pt",
    )


@flow(name="train_funet")
def train_funet(profile: str) -> str:
    """Train FuNet on the pairs; weights chosen by its loss on pairs of unseen subjects and unseen faces."""
    figures = fit.submit(profile).result()
    regions = ("lips", "chin", "face", "outside")
    distances = ", ".join(f"{name} {figures[f'val_{name}_from_blend_mean_mm']:.2f}" for name in regions)
    return f"mean distance to the closed form in mm: {distances}"


if __name__ == "__main__":
    main(pair_faces, train_funet)
