"""Small files in other people's formats, for tests."""

import json
import pickle
from pathlib import Path

import numpy as np

from ecavatar.corpora.vocaset import NATIVE_FPS, Vocaset
from ecavatar.face.model import FaceAsset

SUBJECTS = {
    "FaceTalk_170728_03272_TA": (1, 2),  # train
    "FaceTalk_170904_00128_TA": (1, 3),  # train
    "FaceTalk_170811_03275_TA": (21, 22),  # val
    "FaceTalk_170809_00138_TA": (5, 21),  # 05 in no set, 21 in test
}
"""Subjects of `write_vocaset` and the numbers of their sentences."""


def write_vocaset(root: Path, asset: FaceAsset) -> None:
    """A raw VOCASET of `asset`: four subjects, two sentences each (20, 22 frames at 60 a second), swaying jaws."""
    generator = np.random.default_rng(11)
    meshes, index, audio, templates = [], {}, {}, {}
    jaw = asset.skinning[:, 2]
    for subject, sentences in SUBJECTS.items():
        shape = 0.5 * generator.normal(size=min(6, asset.n_shape)).astype(
            np.float32
        )  # half of one: landmarks of the egg lie far apart
        template = asset.template + asset.shape_basis[..., : len(shape)] @ shape
        templates[subject], index[subject], audio[subject] = template, {}, {}
        for k, number in enumerate(sentences):
            count, first = 20 + 2 * k, sum(map(len, meshes))
            frames = np.repeat(template[None], count, axis=0)
            frames[..., 1] -= 0.01 * (1 - np.cos(np.arange(count) / 3 + number))[:, None] * jaw
            meshes.append(frames)
            name = f"sentence{number:02d}"
            index[subject][name] = {frame: first + frame for frame in range(count)}
            noise = generator.normal(size=22000 * count // 60) * 3000
            audio[subject][name] = {"audio": noise.astype(np.int16), "sample_rate": 22000}
    np.save(root / "data_verts.npy", np.concatenate(meshes))
    for name, value in (("subj_seq_to_idx", index), ("raw_audio_fixed", audio), ("templates", templates)):
        (root / f"{name}.pkl").write_bytes(pickle.dumps(value, protocol=2))


def write_vocaset_folders(root: Path, vocaset: Vocaset) -> None:
    """An opened VOCASET's usable clips as FaceFormer's and SelfTalk's scripts would prepare them, in folder `root`."""
    from scipy.io import wavfile

    for folder in ("vertices_npy", "wav"):
        (root / folder).mkdir(parents=True)
    (root / "templates.pkl").write_bytes(pickle.dumps(vocaset.templates, protocol=2))
    for clip in vocaset.clips:
        meshes = vocaset.vertices(clip, NATIVE_FPS)
        np.save(root / "vertices_npy" / f"{clip.clip_id}.npy", meshes.reshape(len(meshes), -1))
        samples, rate = vocaset.audio(clip)
        wavfile.write(root / "wav" / f"{clip.clip_id}.wav", rate, np.rint(samples * 32768).astype(np.int16))


def write_hubert(directory: Path) -> None:
    """A random HuBERT with a CTC head, as a transformers folder."""
    import torch
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2CTCTokenizer

    directory.mkdir()
    letters = {letter: index for index, letter in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", "E", "T", "A"])}
    (directory / "letters.json").write_text(json.dumps(letters))
    Wav2Vec2CTCTokenizer(str(directory / "letters.json")).save_pretrained(directory)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        config = HubertConfig(
            vocab_size=len(letters), pad_token_id=0, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=24, conv_dim=[8, 8], conv_kernel=[10, 8], conv_stride=[10, 32],
            num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        )  # fmt: skip
        HubertForCTC(config).save_pretrained(directory)
