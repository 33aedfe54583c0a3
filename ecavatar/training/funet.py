"""How FuNet is trained: pairs of meshes made on the device, the fusion losses, and the distance to their minimiser."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ecavatar.config import FuNetSettings
from ecavatar.errors import DataError
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.face.regions import FusionRegions, fusion_regions
from ecavatar.models.funet import FuNet, FusionLoss, blend
from ecavatar.storage.files import atomic_path
from ecavatar.storage.shards import input_hash
from ecavatar.training.card import write_model_card
from ecavatar.training.loop import figures_of, fixed_threads, seeded_torch, train, write_curve
from ecavatar.training.pairs import FacePairs, FacePool, pairs_fingerprint, read_pairs
from ecavatar.training.processes import is_main_process
from ecavatar.training.warm_start import warm_start
from ecavatar.training.weights import save_weights
from ecavatar.vocateeth.dataset import VocaTeeth

_EXAMPLES = 256  # pairs that set the normalisation
_CHUNK = 32  # validation pairs fused at a time
_LARGEST_M = 1.0  # no vertex of a head in metres lies further from the origin


@dataclass(kw_only=True, eq=False)
class MeshPairs:
    """Pairs of one split with what their meshes are made from."""

    pairs: FacePairs
    lip_rows: Int[np.ndarray, " n"]
    """Row of `lips` of each pair."""
    lips: Float[Tensor, "frames V 3"]
    """Frames in use, metres, in memory."""
    face_rows: Int[np.ndarray, " n"]
    """Row of the coefficients of each pair."""
    coefficients: dict[str, Float[Tensor, "faces _"]]
    """shape, expression, jaw_pose of the whole pool."""
    face_model: FaceModel

    def __len__(self) -> int:
        return len(self.pairs)

    def meshes(self, items: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """M_lip and M_emo of these pairs, (B, V, 3) metres each; M_emo keeps its jaw, its head pose is zero."""
        rows = torch.from_numpy(self.face_rows[list(items)])
        with torch.no_grad():
            emotional = self.face_model(
                *(self.coefficients[name][rows].to(device) for name in ("shape", "expression", "jaw_pose"))
            )
        return self.lips[torch.from_numpy(self.lip_rows[list(items)])].to(device), emotional


def load_mesh_pairs(teeth: VocaTeeth, pool: FacePool, pairs: FacePairs, face_model: FaceModel) -> MeshPairs:
    """Frames and coefficients of the pairs.

    Raises:
        DataError: a pair names a clip, frame or face that is not there.
        TopologyError: VOCATeeth has another topology than the face model.
    """
    teeth.require_topology(face_model.asset.topology)
    row_of_face = {item_id: row for row, item_id in enumerate(pool.item_ids)}
    absent = sorted(set(pairs.item_ids) - set(row_of_face))
    if absent:
        raise DataError(f"{len(absent)} paired faces are not in the pool, first {absent[0]}. Run pair_faces again.")
    lips, lip_rows = _frames_in_use(teeth, pairs)
    coefficients = {
        name: torch.from_numpy(np.array(getattr(pool, name))) for name in ("shape", "expression", "jaw_pose")
    }
    face_rows = np.array([row_of_face[item_id] for item_id in pairs.item_ids])
    return MeshPairs(
        pairs=pairs, lip_rows=lip_rows, lips=lips, face_rows=face_rows, coefficients=coefficients, face_model=face_model
    )


class FuNetSystem(nn.Module):
    """Network and losses together: from a pair of mesh batches to the losses."""

    def __init__(self, network: FuNet, loss: FusionLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """See `FusionLoss.forward`."""
        lip, emotional = batch
        return self.loss(self.network(lip, emotional).float(), lip, emotional)


@dataclass(kw_only=True, eq=False)
class FuNetObjective:
    """FuNet's task for `ecavatar.training.loop.train`."""

    module: FuNetSystem
    training: MeshPairs
    validation: MeshPairs
    settings: FuNetSettings
    name: str = "funet"
    score: str = "val_loss"
    regions: FusionRegions = field(init=False)
    upper_face: Tensor = field(init=False)

    def __post_init__(self) -> None:
        asset = self.training.face_model.asset
        self.regions = fusion_regions(asset)
        self.upper_face = torch.from_numpy(asset.regions["upper_face"].copy()).long()

    def __len__(self) -> int:
        return len(self.training)

    def batch(self, items: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """M_lip and M_emo of these pairs; M_lip's identity varied by `identity_sigma`, anew in every epoch."""
        self.training.face_model.to(device)
        lip, emotional = self.training.meshes(items, device)
        if not self.settings.identity_sigma:
            return lip, emotional
        asset = self.training.face_model.asset
        # drawn on the CPU: the same identities on every device
        drawn = (self.settings.identity_sigma * torch.randn(len(items), asset.n_shape)).to(device)
        flat = drawn @ self.training.face_model.get_buffer("shape_rows")
        return lip + flat.unflatten(1, (asset.n_vertices, 3)), emotional

    def examples(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """M_lip, M_emo and their `blend` for the first `count` training pairs."""
        lip, emotional = self.batch(range(min(count, len(self.training))), torch.device("cpu"))
        return lip, emotional, self.target(lip, emotional)

    def describe(self, items: Sequence[int]) -> str:
        """Frame and face of each pair."""
        pairs = self.training.pairs
        return ", ".join(f"{pairs.clip_ids[i]}[{pairs.frames[i]}] + {pairs.item_ids[i]}" for i in items)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Losses, LVE against M_lip, EVE against M_emo, and the mean and largest distance to `blend` by region, mm."""
        sums: dict[str, float] = {}
        distances = []
        self.validation.face_model.to(device)
        for first in range(0, len(self.validation), _CHUNK):
            items = range(first, min(first + _CHUNK, len(self.validation)))
            lip, emotional = self.validation.meshes(items, device)
            fused = self.module.network(lip, emotional).float()
            figures = {f"val_{name}": value for name, value in self.module.loss(fused, lip, emotional).items()}
            figures["val_lve_m2"] = _largest(fused, lip, self.module.loss.lips)
            figures["val_eve_m2"] = _largest(fused, emotional, self.upper_face.to(device))
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(items) / len(self.validation)
            distances.append((fused - self.target(lip, emotional)).norm(dim=2).cpu())
        return sums | self._by_region(1000 * torch.cat(distances))

    def target(self, lip: Tensor, emotional: Tensor) -> Tensor:
        """The minimiser of the losses."""
        w = self.settings
        return blend(lip, emotional, self.regions, chin_lip=w.chin_lip, chin_emotional=w.chin_emotional)

    def _by_region(self, distances_mm: Float[Tensor, "N V"]) -> dict[str, float]:
        figures = {}
        for name in ("lips", "chin", "face", "outside"):
            chosen = distances_mm[:, torch.from_numpy(getattr(self.regions, name).copy()).long()]
            figures[f"val_{name}_from_blend_mean_mm"] = float(chosen.mean())
            figures[f"val_{name}_from_blend_max_mm"] = float(chosen.max())
        return figures


def funet_objective(training: MeshPairs, validation: MeshPairs, settings: FuNetSettings) -> FuNetObjective:
    """The objective with a new network; draws its weights from torch's generator (see `loop.seeded_torch`).

    Raises:
        DataError: a mesh is not finite or not in metres.
    """
    asset = training.face_model.asset
    for name, lips in (("training", training.lips), ("validation", validation.lips)):
        largest = float(lips.abs().max())
        if not largest < _LARGEST_M:
            raise DataError(f"{name} meshes reach {largest:g} m, expected a head in metres. Check VOCATeeth.")
    network = FuNet(
        n_vertices=asset.n_vertices, channels=settings.channels, hidden=settings.hidden, residual=settings.residual
    )
    loss = FusionLoss(
        fusion_regions(asset),
        chin_lip=settings.chin_lip,
        chin_emotional=settings.chin_emotional,
        terms=settings.terms,
        reduction=settings.reduction,
    )
    system = FuNetSystem(network, loss)
    objective = FuNetObjective(module=system, training=training, validation=validation, settings=settings)
    if settings.normalise:
        network.set_normalisation(*objective.examples(_EXAMPLES))
    if settings.warm_start:
        warm_start(network, *objective.examples(settings.warm_start))
    return objective


@dataclass(frozen=True, slots=True, kw_only=True)
class FuNetSources:
    """What FuNet is trained from."""

    face_model: Path
    vocateeth: Path
    pool: Path
    """Reconstructed emotional faces, part-*.parquet."""
    pairs: Path


def fit_funet(
    sources: FuNetSources, settings: FuNetSettings, seed: int, *, out: Path, curve: Path, checkpoint: Path
) -> dict[str, float]:
    """Train FuNet and write weights and curve.

    Args:
        sources: inputs.
        settings: section `funet`.
        seed: of params.yaml.
        out: directory for model.*; appears whole.
        curve: csv, one row an epoch.
        checkpoint: file to resume from; removed at the end.

    Returns:
        Validation figures of the chosen epoch.

    Raises:
        EcavatarError: a source is missing or does not fit, or training cannot go on.
    """
    asset = FaceAsset.load(sources.face_model)
    teeth, pool = VocaTeeth.open(sources.vocateeth), FacePool.open(sources.pool)
    pool.require_basis(sources.pool, asset)
    pairs = read_pairs(sources.pairs, teeth)
    data_hash = input_hash(
        teeth.fingerprint(), pairs_fingerprint(sources.pairs), sources.pool, sources.face_model, settings
    )
    face_model = FaceModel(asset)
    with fixed_threads(settings.training.threads), seeded_torch(seed, "funet", "weights"):
        meshes = {name: load_mesh_pairs(teeth, pool, split, face_model) for name, split in pairs.items()}
        objective = funet_objective(meshes["train"], meshes["validation"], settings)
        state = train(objective, settings.training, seed=seed, data_hash=data_hash, checkpoint=checkpoint)
    figures = figures_of(state)
    facts = {"topology": asset.topology, "basis": asset.basis, "data_hash": data_hash, "epoch": state.best_epoch}
    if is_main_process():
        with atomic_path(out) as directory:
            save_weights(directory, objective.module.network, facts | {"figures": figures})
            write_model_card(directory, settings, seed)
        write_curve(curve, state.rows)
        checkpoint.unlink(missing_ok=True)
    return figures


def _largest(fused: Tensor, reference: Tensor, region: Tensor) -> Tensor:
    return (fused - reference)[:, region].square().sum(dim=2).amax(dim=1).mean()


def _frames_in_use(teeth: VocaTeeth, pairs: FacePairs) -> tuple[Float[Tensor, "frames V 3"], Int[np.ndarray, " n"]]:
    """Every frame that a pair names, once, and its row for each pair."""
    wanted: dict[str, set[int]] = {}
    for clip_id, frame in zip(pairs.clip_ids, pairs.frames.tolist(), strict=True):
        wanted.setdefault(clip_id, set()).add(frame)
    clips = {clip.clip_id: clip for clip in teeth.clips}
    row_of: dict[tuple[str, int], int] = {}
    chosen = []
    for clip_id in sorted(wanted):
        frames = sorted(wanted[clip_id])
        if clip_id not in clips or frames[-1] >= clips[clip_id].frames or frames[0] < 0:
            raise DataError(f"VOCATeeth has no frames {frames[0]}..{frames[-1]} of {clip_id}. Run pair_faces again.")
        row_of |= {(clip_id, frame): len(row_of) + index for index, frame in enumerate(frames)}
        chosen.append(teeth.vertices(clips[clip_id])[frames])
    rows = [row_of[key] for key in zip(pairs.clip_ids, pairs.frames.tolist(), strict=True)]
    return torch.from_numpy(np.concatenate(chosen)), np.array(rows)
