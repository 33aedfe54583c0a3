"""Lips for speech of any length: chunked against one look, streamed against chunked, memory, latency."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.animation.lip_stream import LIVE, ChunkPlan, LipStream
from ecavatar.errors import DataError, ShapeError
from ecavatar.models.selftalk import SelfTalk
from ecavatar.speech.audio import SPEECH_RATE
from ecavatar.speech.sound_facts import measure_sound

V, FPS = 7, 30
PLAN = ChunkPlan(hop_s=1.0, left_s=0.5, right_s=0.4, fade_s=0.2)
ENCODER = {
    "model_type": "hubert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 24, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True,
}  # fmt: skip


def network(**changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"n_vertices": V, "feature_dim": 8, "heads": 2, "dropout": 0.1, "output_scale_m": 0.01}
        model = SelfTalk(encoder=ENCODER, frozen="all", **(sizes | changes)).eval()
        with torch.no_grad():
            for layer in filter(None, (model.vertex_map, model.angle_map)):
                layer.weight.normal_()
    return model


NETWORK = network()


def speech(seconds, seed=0):
    """Noise whose loudness moves like syllables."""
    generator = np.random.default_rng(seed)
    times = np.arange(round(seconds * SPEECH_RATE)) / SPEECH_RATE
    return (generator.normal(size=len(times)) * (0.02 + 0.1 * np.sin(7 * times) ** 2)).astype(np.float32)


def streamed(samples, cuts=(), plan=PLAN, model=NETWORK, **options):
    stream = LipStream(model, FPS, plan, **options)
    motions = [motion for block in np.split(samples, list(cuts)) for motion in stream.push(block)]
    motions += stream.finish()
    angles = None if motions[0].angles is None else torch.cat([motion.angles for motion in motions])
    return torch.cat([motion.vertices for motion in motions]), angles, stream


@given(st.lists(st.integers(0, round(4.3 * SPEECH_RATE)), max_size=6), st.booleans())
def test_block_sizes_change_no_byte(cuts, knows_level):
    samples = speech(4.3)
    level = measure_sound([samples], SPEECH_RATE).level if knows_level else None
    whole, angles, _ = streamed(samples, level=level)
    pieces, piece_angles, _ = streamed(samples, sorted(cuts), level=level)
    assert torch.equal(whole, pieces)
    assert torch.equal(angles, piece_angles)


@given(st.floats(0.001, 3.6))
def test_there_are_as_many_frames_as_the_sound_is_long(seconds):
    samples = speech(max(seconds, 1 / SPEECH_RATE))
    vertices, angles, stream = streamed(samples)
    assert len(vertices) == len(angles) == stream.frames == max(1, round(len(samples) / SPEECH_RATE * FPS))
    assert vertices.isfinite().all()


def test_a_recording_shorter_than_a_window_is_one_look():
    samples = speech(1.3)
    vertices, angles, _ = streamed(samples)
    whole = NETWORK.offsets(torch.from_numpy(samples), len(vertices))
    torch.testing.assert_close(vertices, whole.vertices, atol=1e-7, rtol=0)
    torch.testing.assert_close(angles, whole.angles, atol=1e-7, rtol=0)


def local(model):
    """The same network with attention that looks nowhere: then only the positional convolution reaches out."""
    with torch.no_grad():
        for layer in [*model.encoder.model.encoder.layers]:
            layer.attention.out_proj.weight.zero_()
        for attention in (
            model.transformer_decoder.layers[0].self_attn,
            model.transformer_decoder.layers[0].multihead_attn,
        ):
            attention.out_proj.weight.zero_()
    return model


def test_a_network_that_looks_no_farther_than_its_context_gives_the_whole_clips_frames():
    """301 features, 181 frames: the last two lie at one time, so that one look does not stretch time either."""
    model, samples = local(network()), speech(6.025)[: 300 * 320 + 400]
    level = measure_sound([samples], SPEECH_RATE).level
    vertices, _, _ = streamed(samples, model=model, level=level)
    whole = model.offsets(torch.from_numpy(samples), 181).vertices
    assert len(vertices) == 181
    assert (vertices - whole).norm(dim=-1).max() < 1e-5
    assert (whole - whole.mean(dim=0)).norm(dim=-1).mean() > 1e-2


def test_more_context_brings_chunks_nearer_to_one_look():
    samples = speech(9.0)
    whole = NETWORK.offsets(torch.from_numpy(samples), 270).vertices
    level = measure_sound([samples], SPEECH_RATE).level

    def distance(context):
        plan = ChunkPlan(hop_s=1.0, left_s=context, right_s=context, fade_s=min(0.1, context))
        return float((streamed(samples, plan=plan, level=level)[0] - whole).norm(dim=-1).mean())

    none, some, much = distance(0.0), distance(0.5), distance(3.0)
    assert much < some < none
    assert much < 0.15 * float((whole - whole.mean(dim=0)).norm(dim=-1).mean())


def test_neighbouring_windows_fade_into_each_other():
    samples = speech(8.0)
    level = measure_sound([samples], SPEECH_RATE).level

    def jump(fade):
        plan = ChunkPlan(hop_s=1.0, left_s=0.2, right_s=0.4, fade_s=fade)
        vertices, _, _ = streamed(samples, plan=plan, level=level)
        steps = (vertices[1:] - vertices[:-1]).norm(dim=-1).mean(dim=1)
        return float(steps[[29, 59, 89, 119, 149]].mean())

    assert jump(0.3) < jump(0.0)


def test_frames_come_no_later_than_the_stated_latency():
    samples, stream = speech(6.0), LipStream(NETWORK, FPS, LIVE)
    assert stream.latency_s == pytest.approx(LIVE.hop_s + LIVE.right_s + 0.025)
    for count in range(160, len(samples) + 1, 160):
        stream.push(samples[count - 160 : count])
        assert stream.frames / FPS >= count / SPEECH_RATE - stream.latency_s - 160 / SPEECH_RATE


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording():
    block, stream = speech(10.0), LipStream(NETWORK, FPS, ChunkPlan(hop_s=8.0, left_s=1.0, right_s=1.0, fade_s=0.1))
    peaks = []
    tracemalloc.start()
    for minute in range(10):
        tracemalloc.reset_peak()
        for _ in range(6):
            stream.push(block)
        peaks.append(tracemalloc.get_traced_memory()[1])
        assert len(stream._held) < 12 * SPEECH_RATE, minute
    tracemalloc.stop()
    stream.finish()
    assert stream.frames == 600 * FPS
    assert max(peaks[1:]) < 1.05 * peaks[1]


def test_the_running_level_ends_at_that_of_the_whole_recording():
    samples = np.concatenate([0.01 * speech(3.0), speech(4.0, seed=1) + 0.05])
    _, _, stream = streamed(samples, [7, 16000, 16001])
    level = measure_sound([samples], SPEECH_RATE).level
    assert stream._heard.level.mean == pytest.approx(level.mean, rel=1e-9)
    assert stream._heard.level.variance == pytest.approx(level.variance, rel=1e-9)


def test_a_regressed_mouth_streams_too():
    model, samples = network(mouth="regressed", n_mouth=3), speech(3.0)
    vertices, angles, _ = streamed(samples, model=model)
    assert angles is None
    assert vertices.shape == (90, V + 3, 3)
    face, _, _ = streamed(samples, model=model, face_only=True)
    torch.testing.assert_close(face, vertices[:, :V], atol=1e-7, rtol=0)


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
def test_any_usual_frame_rate_meets_the_features(fps):
    stream = LipStream(NETWORK, fps, PLAN)
    motions = [*stream.push(speech(4.0)), *stream.finish()]
    assert sum(len(motion.vertices) for motion in motions) == 4 * fps


def test_wrong_input_is_refused():
    stream = LipStream(NETWORK, FPS, PLAN)
    with pytest.raises(ShapeError, match="sound"):
        stream.finish()
    with pytest.raises(ShapeError, match="channels"):
        stream.push(np.zeros((4, 2), np.float32))
    with pytest.raises(DataError, match="finite"):
        stream.push(np.array([np.nan], np.float32))
    stream.push(speech(0.5))
    stream.finish()
    with pytest.raises(ShapeError, match="finished"):
        stream.push(speech(0.1))
    with pytest.raises(DataError, match="fade_s"):
        ChunkPlan(hop_s=1.0, left_s=0.0, right_s=0.1, fade_s=0.2)
    with pytest.raises(DataError, match="meet every"):
        LipStream(NETWORK, 29.97, ChunkPlan(hop_s=0.2, left_s=0.2, right_s=0.2, fade_s=0.1))
