"""The speech encoder against transformers' own model at HuBERT's large shape, and padded batches against single clips.

Random weights and noise: neither changes how long anything takes. Peaks are those of a fresh process each, imports
included; times are minima of repetitions that alternate within one process.
"""

import copy
import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bench._record import record
from ecavatar.seeding import stream
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.encoder import ResampleSite, SpeechEncoder
from ecavatar.speech.precision import multiplies_bfloat16

SECONDS = 10
FPS = 30
BATCH = 8
LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True,
}  # fmt: skip
"""facebook/hubert-large-ls960-ft."""
SMALL = {
    "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256,
    "conv_dim": [16, 32, 48, 64, 64, 64, 64], "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 8,
    "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "layerdrop": 0.0, "mask_time_prob": 0.0,
}  # fmt: skip
"""The sample profile's HuBERT, dropout off."""
CLIP_S = (2.8, 3.0, 3.1, 3.3, 3.5, 3.6, 3.8, 4.0)  # one bucket of sentences


def hubert(config: Mapping[str, Any]) -> Any:
    """A HubertModel with random weights."""
    from transformers import HubertConfig, HubertModel

    return HubertModel(HubertConfig(**config)).eval()


def noise(seconds: float, name: str = "clip") -> Tensor:
    samples = stream(0, "bench", "speech", name, seconds).standard_normal(round(seconds * SPEECH_RATE))
    return torch.from_numpy(samples).float()


def side_by_side(works: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Shortest run of each, in seconds; they take turns, so a busy moment of the machine meets all of them."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(repetitions):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


# --- large ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def large_times() -> dict[str, object]:
    model, clip = hubert(LARGE), noise(SECONDS)[None]
    sites: tuple[ResampleSite, ...] = ("before_projection", "after_encoder")
    encoders: dict[str, SpeechEncoder] = {site: SpeechEncoder(model, resample=site) for site in sites}
    encoders["bfloat16"] = SpeechEncoder(copy.deepcopy(model)).to_bfloat16()
    works: dict[str, Callable[[], object]] = {"transformers": lambda: model(clip)}
    works |= {name: lambda e=encoder: e(clip, None, SECONDS * FPS) for name, encoder in encoders.items()}
    times = side_by_side(works, 6)
    exact, rounded = (encoders[name](clip, None, SECONDS * FPS) for name in ("before_projection", "bfloat16"))
    return {
        "large_seconds": {name: round(seconds, 4) for name, seconds in times.items()},
        "large_time_over_transformers": {
            name: round(seconds / times["transformers"], 3) for name, seconds in times.items() if name != "transformers"
        },
        "cpu_multiplies_bfloat16": multiplies_bfloat16(torch.device("cpu")),
        "large_bfloat16_relative_change": float((rounded - exact).norm() / exact.norm()),
    }


@torch.no_grad()
def large_peak_gb(kind: str) -> float:
    """Largest resident size of this process after `kind` has run twice, GB (1e9 bytes)."""
    model, clip = hubert(LARGE), noise(SECONDS)[None]
    encoder = SpeechEncoder(model)
    if kind == "bfloat16":
        encoder.to_bfloat16()
    for _ in range(2):
        model(clip) if kind == "transformers" else encoder(clip, None, SECONDS * FPS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def in_fresh_process(work: Callable[[str], float], argument: str) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, argument).result()


# --- small ------------------------------------------------------------------------------------------------------------


def small_rates(norm: str) -> dict[str, object]:
    """Clips a second of the encoder, one by one and padded; a training step is forward and backward."""
    is_large = norm == "layer"
    model = hubert(SMALL | {"feat_extract_norm": norm, "do_stable_layer_norm": is_large, "conv_bias": is_large})
    encoder = SpeechEncoder(model)
    clips = [noise(seconds, "small") for seconds in CLIP_S]
    frames = [round(seconds * FPS) for seconds in CLIP_S]
    batch, lengths = pad_sequence(clips, batch_first=True), [len(clip) for clip in clips]

    def step(features: Tensor) -> None:
        encoder.zero_grad()
        features.square().mean().backward()

    def one_by_one(finish: Callable[[Tensor], object]) -> None:
        for clip, count in zip(clips, frames, strict=True):
            finish(encoder(clip[None], None, count))

    with torch.no_grad():
        predict = side_by_side({"1": lambda: one_by_one(id), "8": lambda: encoder(batch, lengths, frames)}, 30)
    train = side_by_side({"1": lambda: one_by_one(step), "8": lambda: step(encoder(batch, lengths, frames))}, 20)
    return {
        f"small_{norm}_{name}": {
            "clips_per_second_batch_1": round(BATCH / times["1"], 1),
            "clips_per_second_batch_8": round(BATCH / times["8"], 1),
            "ratio": round(times["1"] / times["8"], 2),
        }
        for name, times in (("predict", predict), ("train", train))
    }


def main(kinds: Sequence[str] = ("transformers", "before_projection", "bfloat16")) -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    peaks = {kind: round(in_fresh_process(large_peak_gb, kind), 2) for kind in kinds}
    figures = {"audio_seconds": SECONDS, "threads": torch.get_num_threads(), **large_times(), "large_peak_gb": peaks}
    record("speech", figures | small_rates("group") | small_rates("layer"), ["transformers"])


if __name__ == "__main__":
    main()
