"""What may meet a face model: vertices of its topology, coefficients of its basis."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from ecavatar.errors import BasisError, TopologyError
from ecavatar.face.model import FaceModel
from ecavatar.face.tags import require_basis, require_topology, require_vertex_order
from ecavatar.sample.head import build_open_head


def test_coefficients_of_another_basis_never_meet_a_model(asset):
    require_basis(asset, asset.basis, "x")
    for basis, words in (("flame2020", "mean flame2020"), (None, "do not say"), ("", "mean")):
        with pytest.raises(BasisError, match=words):
            require_basis(asset, basis, "faces.parquet")


def test_vertices_of_one_topology_mix_whatever_their_basis(asset):
    other = replace(asset, basis="another")
    require_topology(other, asset.topology, "x")
    for topology in ("flame", None):
        with pytest.raises(TopologyError, match=r"clip\.npz"):
            require_topology(asset, topology, "clip.npz")


@pytest.mark.slow
def test_a_head_without_tags_is_known_by_the_places_of_its_vertices(shared_data):
    head = build_open_head()
    draw = np.random.default_rng(0)
    shapes = torch.from_numpy(draw.normal(size=(5, 300)).astype(np.float32))
    turn = Rotation.from_rotvec([1.0, -2.0, 0.5])
    with torch.inference_mode():
        people = FaceModel(head)(shapes, torch.zeros(1, 1)).numpy()
    for person in people:
        require_vertex_order(head, turn.apply(person) + 3, "x")
    flame = trimesh.load(shared_data / "flame_template_ccby" / "template.ply", process=False)
    for stranger in (np.asarray(flame.vertices), head.template[draw.permutation(5023)], head.template[:100]):
        with pytest.raises(TopologyError):
            require_vertex_order(head, stranger, "x")
