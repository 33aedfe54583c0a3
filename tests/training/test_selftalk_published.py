"""A checkpoint with the keys of the published `vocaset.pth`, read against the original's formulas written out."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.models.selftalk import SelfTalk
from ecavatar.training.selftalk_published import convert_published, open_published
from ecavatar.training.weights import load_weights

V, WIDTH, FEATURES = 9, 64, 16


class Original(nn.Module):
    """The modules of the original, small, under its names; positional bias is no parameter there, either."""

    def __init__(self, vertices=V, heard=WIDTH):
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

        config = Wav2Vec2Config(
            hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=1, intermediate_size=48, conv_dim=[8] * 7,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, feat_extract_norm="layer", conv_bias=True,
            do_stable_layer_norm=True, vocab_size=33,
        )  # fmt: skip
        self.audio_encoder = Wav2Vec2Model(config)
        self.text_encoder = Wav2Vec2ForCTC(config)
        self.lip_map = nn.Linear(762, WIDTH)
        layer = nn.TransformerDecoderLayer(FEATURES, 4, 2 * FEATURES, batch_first=True)
        self.transformer_decoder = nn.TransformerDecoder(layer, num_layers=1)
        self.audio_feature_map = nn.Linear(heard, FEATURES)
        self.transformer = nn.Transformer(WIDTH, 8, 1, 1, 32, batch_first=True)
        self.vertice_map_r = nn.Linear(FEATURES, vertices * 3)
        self.lm_head = nn.Linear(WIDTH, 33)

    @torch.no_grad()
    def predict(self, samples, template, frames):
        wave = (samples - samples.mean()) / (samples.var(unbiased=False) + 1e-7).sqrt()
        features = self.audio_encoder.feature_extractor(wave[None])
        features = functional.interpolate(features, size=frames, mode="linear", align_corners=True).transpose(1, 2)
        hidden = self.audio_encoder.encoder(self.audio_encoder.feature_projection(features)[0]).last_hidden_state
        x = self.audio_feature_map(hidden)
        return self.vertice_map_r(self.transformer_decoder(x, x)).reshape(frames, -1, 3) + template


def published(path, model, **changes):
    """The state dict as torch 1.12 and transformers 4.26 wrote it."""
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for key, value in model.state_dict().items():
        for new, name in old.items():
            key = key.replace(new, name)
        state[key] = value
    torch.save({**state, **changes}, path)
    return path


@pytest.fixture(scope="module")
def original():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Original().eval()


def test_a_published_checkpoint_moves_the_face_as_the_original_does(tmp_path, original):
    network = open_published(published(tmp_path / "vocaset.pth", original))
    samples, template = torch.randn(16000, generator=torch.Generator().manual_seed(0)), torch.randn(V, 3)
    ours = network.predict(samples, template, 29)
    assert ours.angles is None
    torch.testing.assert_close(ours.vertices, original.predict(samples, template, 29), atol=1e-5, rtol=1e-5)


def test_interpreter_and_recogniser_are_never_read(tmp_path, original):
    broken = {key: torch.full((2,), torch.nan) for key in original.state_dict() if key.startswith(("text_", "lip_map"))}
    network = open_published(published(tmp_path / "vocaset.pth", original, **broken))
    named = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert named == {"encoder", "audio_feature_map", "transformer_decoder", "vertex_map"}


def test_a_converted_checkpoint_loads_like_one_of_ours(tmp_path, original):
    facts = convert_published(published(tmp_path / "vocaset.pth", original), tmp_path / "weights")
    network, saved = load_weights(tmp_path / "weights", SelfTalk)
    assert saved == facts
    assert (saved["topology"], saved["fps"]) == ("flame", 30)
    samples, template = torch.randn(8000), torch.zeros(V, 3)
    direct = open_published(tmp_path / "vocaset.pth").predict(samples, template, 12)
    assert torch.equal(network.predict(samples, template, 12).vertices, direct.vertices)


def test_what_lies_beyond_flames_vertices_is_a_mouth(tmp_path):
    network = open_published(published(tmp_path / "15051.pth", Original(vertices=15051)))
    assert (network.n_vertices, network.n_mouth) == (5023, 10028)


def test_other_checkpoints_are_refused(tmp_path, original):
    with pytest.raises(AssetMissingError):
        open_published(tmp_path / "nowhere.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="vertice_map_r"):
        open_published(tmp_path / "other.pth")
    with pytest.raises(DataError, match="BIWI"):
        open_published(published(tmp_path / "biwi.pth", Original(heard=2 * WIDTH)))
    surplus = published(tmp_path / "surplus.pth", original, extra=torch.zeros(2))
    with pytest.raises(DataError, match="extra is not known"):
        open_published(surplus)
    wrong = {"transformer_decoder.layers.0.norm1.weight": torch.zeros(3)}
    with pytest.raises(DataError, match=r"norm1\.weight has shape \(3,\), expected \(16,\)"):
        open_published(published(tmp_path / "wrong.pth", original, **wrong))
    infinite = {"audio_feature_map.bias": torch.from_numpy(np.full(FEATURES, np.inf, np.float32))}
    with pytest.raises(DataError, match="finite"):
        open_published(published(tmp_path / "infinite.pth", original, **infinite))
    with pytest.raises(DataError, match="no tensor"):
        open_published(published(tmp_path / "words.pth", original, epoch="last"))
