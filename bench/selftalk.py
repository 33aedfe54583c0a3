"""SelfTalk's inference against the bare encoder and the original's way, padded batches, and the loop without a network.

    python -m bench.selftalk

Random weights and noise: neither changes how long anything takes. At the large shape (HuBERT large, 5,023 vertices, 10
seconds) the references are transformers' own HubertModel on the same sound, and the original's way of predicting: the
lip-reading interpreter runs and its answer is thrown away, the speech recogniser is loaded and idle. Peaks are those of
a fresh process each, weights loaded from a file, imports included; times are minima of repetitions that alternate.
How far bfloat16 moves vertices, and chunks are from one look, is measured on the sample profile's trained network.
"""

import dataclasses
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bench._record import record
from bench.speech import (
    BATCH,
    CLIP_S,
    FPS,
    LARGE,
    SECONDS,
    SMALL,
    in_fresh_process,
    noise,
    side_by_side,
)
from ecavatar.animation.lip_stream import LIVE, LONG, ChunkPlan, LipStream
from ecavatar.animation.lips import BFLOAT16_LIMIT_MM, bfloat16_change_mm
from ecavatar.config import SelfTalkSettings, load_params
from ecavatar.models.selftalk import LipReadingInterpreter, SelfTalk, padding_mask
from ecavatar.sample.head import build_open_head
from ecavatar.seeding import stream
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.precision import multiplies_bfloat16
from ecavatar.speech.sound_facts import measure_sound
from ecavatar.training.loop import train
from ecavatar.training.selftalk import LipBatch, LipClip, SelfTalkObjective, SelfTalkSystem
from ecavatar.training.weights import load_weights, save_weights

VERTICES, LIPS = 5023, 254
REPETITIONS = 2
TRAINING_CLIPS, EPOCHS = 8, 1
SAMPLE = Path("data") / "sample"
RECOGNISER = {"vocab_size": 32}


def large_network() -> SelfTalk:
    """The paper's sizes, random weights; frozen, as for prediction."""
    sizes = {"n_vertices": VERTICES, "feature_dim": 512, "heads": 4, "dropout": 0.1, "output_scale_m": 1.0}
    network = SelfTalk(encoder={"model_type": "hubert", **LARGE}, frozen="all", **sizes).eval()
    with torch.no_grad():
        network.vertex_map.weight.normal_(std=1e-4)
    return network


def large_interpreter() -> LipReadingInterpreter:
    """The original's."""
    return LipReadingInterpreter(
        n_lips=LIPS, width=1024, vocabulary=33, layers=6, heads=8, ffn=2048, dropout=0.1, scale_m=1.0
    ).eval()


def idle_recogniser() -> nn.Module:
    """What the original keeps in memory while it predicts."""
    from transformers import HubertConfig, HubertForCTC

    return HubertForCTC(HubertConfig(**LARGE, **RECOGNISER)).eval()


@torch.no_grad()
def original_way(network: SelfTalk, interpreter: LipReadingInterpreter, samples: Tensor) -> Tensor:
    """Vertices, and beside them letters that nobody reads."""
    motion = network.offsets(samples, SECONDS * FPS)
    steps = network.encoder.steps(len(samples))
    interpreter(motion.vertices[None, :, :LIPS], [SECONDS * FPS], [steps])
    return motion.vertices


# --- large ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def large_times() -> dict[str, object]:
    """Seconds of each way, and their ratios."""
    network, interpreter, samples = large_network(), large_interpreter(), noise(SECONDS)
    bare, frames = network.encoder.model, SECONDS * FPS
    features = network.features(samples[None], None, frames)
    works: dict[str, Callable[[], object]] = {
        "transformers": lambda: bare(samples[None]),
        "selftalk": lambda: network.offsets(samples, frames),
        "animator": lambda: network.animate(features),
        "encoder": lambda: network.features(samples[None], None, frames),
        "original": lambda: original_way(network, interpreter, samples),
    }
    times = side_by_side(works, REPETITIONS)
    network.to_bfloat16()
    rough = {"selftalk_bfloat16": lambda: network.offsets(samples, frames)}
    times |= side_by_side(rough, REPETITIONS)
    return {
        "large_seconds": {name: round(value, 4) for name, value in times.items()},
        "large_over_transformers": round(times["selftalk"] / times["transformers"], 3),
        "large_animator_over_encoder": round(times["animator"] / times["encoder"], 4),
        "large_original_over_ours": round(times["original"] / times["selftalk"], 2),
        "large_original_over_ours_bfloat16": round(times["original"] / times["selftalk_bfloat16"], 2),
        "cpu_multiplies_bfloat16": multiplies_bfloat16(torch.device("cpu")),
    }


def write_large(folder: Path) -> None:
    """Weights files of the large networks."""
    save_weights(folder, large_network(), {"topology": "flame", "fps": FPS})
    save_weights(folder, large_interpreter(), {}, stem="interpreter")


def large_peak_gb(argument: str) -> float:
    """Largest resident size of this process after one way has predicted twice, GB (1e9 bytes).

    Args:
        argument: `ours`, `bfloat16` or `original`, and the folder of `write_large`.
    """
    kind, folder = argument.split(":", 1)
    network, _ = load_weights(Path(folder), SelfTalk)
    samples = noise(SECONDS)
    if kind == "original":
        interpreter, _ = load_weights(Path(folder), LipReadingInterpreter, stem="interpreter")
        recogniser = idle_recogniser()
        for _ in range(2):
            original_way(network, interpreter, samples)
        del recogniser
    else:
        network = network.to_bfloat16() if kind == "bfloat16" else network
        for _ in range(2):
            network.offsets(samples, SECONDS * FPS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def large_peaks() -> dict[str, object]:
    """Peaks of the three ways."""
    with tempfile.TemporaryDirectory() as folder:
        in_fresh_process(write_in, folder)
        peaks = {kind: in_fresh_process(large_peak_gb, f"{kind}:{folder}") for kind in ("ours", "bfloat16", "original")}
    return {
        "large_peak_gb": {kind: round(value, 2) for kind, value in peaks.items()},
        "large_peak_ours_over_original": round(peaks["ours"] / peaks["original"], 3),
    }


def write_in(folder: str) -> float:
    """`write_large` in a process of its own."""
    write_large(Path(folder))
    return 0.0


# --- small ------------------------------------------------------------------------------------------------------------


def small_network() -> SelfTalk:
    """The sample profile's sizes."""
    settings = sample_settings()
    return SelfTalk(
        encoder={"model_type": "hubert", **SMALL}, frozen="all", n_vertices=VERTICES, feature_dim=settings.feature_dim,
        heads=settings.heads, dropout=settings.dropout, output_scale_m=settings.output_scale_m,
    ).eval()  # fmt: skip


@torch.no_grad()
def small_batches() -> dict[str, object]:
    """Clips a second one by one and padded, whole inference."""
    network = small_network()
    clips, frames = [noise(seconds, "small") for seconds in CLIP_S], [round(seconds * FPS) for seconds in CLIP_S]
    batch, lengths = pad_sequence(clips, batch_first=True), [len(clip) for clip in clips]
    mask = padding_mask(frames, batch.device)

    def one_by_one() -> None:
        for clip, count in zip(clips, frames, strict=True):
            network.animate(network.features(clip[None], None, count))

    def together() -> None:
        network.animate(network.features(batch, lengths, frames), mask)

    times = side_by_side({"1": one_by_one, "8": together}, 5)
    return {
        "small_clips_per_second_batch_1": round(BATCH / times["1"], 1),
        "small_clips_per_second_batch_8": round(BATCH / times["8"], 1),
        "small_batch_8_over_1": round(times["1"] / times["8"], 2),
    }


class NullSystem(nn.Module):
    """Takes a batch and learns nothing from it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, batch: LipBatch) -> dict[str, Tensor]:
        """One loss, of no use."""
        return {"loss": (self.weight - batch.truth.vertices[0, 0, 0, 0]).square()}


@dataclasses.dataclass(kw_only=True, eq=False)
class WithoutValidation(SelfTalkObjective):
    """The same batches; what is timed is training alone."""

    def __post_init__(self) -> None:
        self.baselines = {}

    def validate(self, device: torch.device) -> dict[str, float]:
        """Nothing."""
        del device
        return {"val_lve_m2": 0.0}


def null_loop() -> dict[str, object]:
    """Seconds of the training loop with the sample's network and with none, on the same clips."""
    settings = sample_settings()
    network, clips = small_network(), training_clips(settings)
    interpreter = LipReadingInterpreter(
        n_lips=LIPS, width=SMALL["hidden_size"], vocabulary=32, layers=settings.interpreter_layers,
        heads=settings.interpreter_heads, ffn=settings.interpreter_ffn, dropout=settings.dropout,
        scale_m=settings.output_scale_m,
    )  # fmt: skip
    system = SelfTalkSystem(network, interpreter, np.arange(LIPS), settings)
    works = {
        "network": lambda: run_loop(system, clips, settings),
        "null": lambda: run_loop(NullSystem(), clips, settings),
    }
    times = side_by_side(works, 2)
    return {
        "loop_seconds": {name: round(value, 3) for name, value in times.items()},
        "loop_network_over_null": round(times["network"] / times["null"], 1),
    }


def training_clips(settings: SelfTalkSettings) -> list[LipClip]:
    """Clips of three to four seconds, their features and the recogniser's opinion already there."""
    del settings
    clips = []
    for number in range(TRAINING_CLIPS):
        seconds = CLIP_S[number % len(CLIP_S)]
        frames, steps = round(seconds * FPS), round(seconds * 50) - 1
        draw = stream(0, "bench", "selftalk", number)
        clips.append(
            LipClip(
                clip_id=str(number), subject="one", samples=noise(seconds, "loop"),
                offsets=torch.from_numpy(draw.standard_normal((frames, VERTICES, 3), np.float32)) * 1e-3,
                angles=torch.zeros(frames), hidden=torch.randn(steps, SMALL["hidden_size"]),
                tokens=torch.randint(4, 32, (30,)), features=torch.randn(frames, SMALL["hidden_size"]),
            )
        )  # fmt: skip
    return clips


def run_loop(module: nn.Module, clips: Sequence[LipClip], settings: SelfTalkSettings) -> None:
    """A few epochs of the real loop."""
    objective = WithoutValidation(module=module, clips=clips, validation=clips[:1], blank=0)  # type: ignore[arg-type]
    few = settings.training.model_copy(update={"epochs": EPOCHS, "validate_every": EPOCHS, "checkpoint_every": EPOCHS})
    with tempfile.TemporaryDirectory() as folder:
        train(objective, few, seed=0, data_hash="bench", checkpoint=Path(folder) / "checkpoint.pt")


def sample_settings() -> SelfTalkSettings:
    """Section `selftalk` of the sample profile."""
    return load_params(Path("params.yaml")).sample.selftalk


# --- the sample's trained network -------------------------------------------------------------------------------------


@torch.no_grad()
def trained_figures() -> dict[str, object]:
    """What bfloat16 and chunks do to a trained network's vertices; empty where the sample is not built."""
    weights, voices = SAMPLE / "models" / "selftalk", sorted((SAMPLE / "raw" / "ravdess").rglob("*.wav"))
    if not (weights / "model.json").is_file() or not voices:
        return {}
    from ecavatar.speech.audio import read_audio

    lips = np.array(build_open_head().regions["lips"])
    speech = np.concatenate([read_audio(path) for path in voices])
    network, facts = load_weights(weights, SelfTalk)
    frames = round(len(speech) / SPEECH_RATE * facts["fps"])
    whole = network.offsets(torch.from_numpy(speech), frames).vertices[:, lips]
    level = measure_sound([speech], SPEECH_RATE).level

    def distance_mm(plan: ChunkPlan) -> float:
        live = LipStream(network, facts["fps"], plan, level=level)
        chunked = torch.cat([motion.vertices for motion in (*live.push(speech), *live.finish())])[:, lips]
        return round(1000 * float((chunked - whole).norm(dim=-1).mean()), 3)

    chunks = {"long": distance_mm(LONG), "live": distance_mm(LIVE)}
    return {
        "trained_speech_seconds": round(len(speech) / SPEECH_RATE, 1),
        "trained_lip_motion_mm": round(1000 * float((whole - whole.mean(dim=0)).norm(dim=-1).mean()), 3),
        "chunked_lips_from_one_look_mm": chunks,
        "live_latency_seconds": round(LipStream(network, facts["fps"], LIVE).latency_s, 3),
        "bfloat16_largest_change_mm": round(bfloat16_change_mm(network, speech, facts["fps"]), 4),
        "bfloat16_limit_mm": BFLOAT16_LIMIT_MM,
    }


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    figures: dict[str, object] = {"audio_seconds": SECONDS, "vertices": VERTICES, "threads": torch.get_num_threads()}
    for measure in (large_times, large_peaks, small_batches, null_loop, trained_figures):
        figures |= (found := measure())
        print(found, flush=True)
    record("selftalk", figures, ["transformers"])


if __name__ == "__main__":
    main()
