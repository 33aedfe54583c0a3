"""Speech -> lips: `python -m flows.selftalk train_selftalk --profile sample`."""

from prefect import flow

from ecavatar.training.selftalk import SelfTalkSources, fit_selftalk
from flows._run import main, seed, shard_task, stage_settings
from flows.paths import ProfilePaths


@shard_task(name="fit_selftalk")
def fit(profile: str) -> dict[str, float]:
    """Train the network; goes on from the checkpoint of a killed attempt."""
    paths = ProfilePaths(profile)
    sources = SelfTalkSources(face_model=paths.face_model, vocateeth=paths.vocateeth, hubert=paths.hubert)
    return fit_selftalk(
        sources,
        stage_settings(profile).selftalk,
        seed(),
        out=paths.selftalk,
        curve=paths.training_curve("selftalk"),
        checkpoint=paths.checkpoints / "selftalk.pt",
    )


@flow(name="train_selftalk")
def train_selftalk(profile: str) -> str:
    """Train SelfTalk on VOCATeeth's training subjects; weights chosen by LVE on the validation subjects."""
    figures = fit.submit(profile).result()
    names = {"network": "val_lve_m2", "neutral face": "neutral_lve_m2", "mean motion": "train_mean_lve_m2"}
    scores = ", ".join(f"{name} {figures[key]:.3g}" for name, key in names.items())
    return f"validation LVE in m^2: {scores}"


if __name__ == "__main__":
    main(train_selftalk)
