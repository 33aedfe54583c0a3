"""What bringing heads to pose zero costs and how near it comes: many meshes of one topology, and ICP against others'.

A pair for ICP is a random person of the open head, neutral, and the same person with a random expression and an open
mouth, a smooth change of form of 2 mm (root mean square) without a rigid part where the head is rigid, turned by 5 to
20 degrees about a random axis and shifted by up to 4 cm. Every method starts unturned with the centroids on one
another, and has one core: on several, open3d becomes slow as soon as anything else runs (on two idle ones it took half
as long). An error is a vertex's distance from where the known motion puts it, over all vertices.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from bench._record import best_seconds, record
from ecavatar.face.alignment import apply_transform, iterative_closest_point, register_points
from ecavatar.face.model import FaceAsset, FaceModel
from ecavatar.reconstruction.neutral import align_meshes, rigid_vertices
from ecavatar.seeding import stream

MESHES, DISTINCT, SHARD, LOOPED = 10_736, 512, 500, 1_000
PAIRS, CHANGE_M = 40, 2e-3
FACE_MODEL = Path("data/sample/assets/face/face_model.npz")

Motion = np.ndarray
Method = Callable[[np.ndarray, np.ndarray, Motion], Motion]
"""The motion of posed vertices onto target vertices, from a start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A posed, expressive head, the neutral one, and what takes the first to the second's pose."""

    posed: np.ndarray
    neutral: np.ndarray
    motion: Motion


def heads(asset: FaceAsset, count: int, *names: object) -> tuple[np.ndarray, np.ndarray]:
    """Random people at pose zero: with expression and mouth open by up to 0.4 rad, and neutral."""
    rng, model = stream(0, "bench", "align", *names), FaceModel(asset)
    jaw = np.column_stack([rng.uniform(0, 0.4, count), np.zeros((count, 2))])
    numbers = (rng.normal(size=(count, asset.n_shape)), rng.normal(size=(count, asset.n_expression)), jaw)
    shape, expression, jaw = (torch.from_numpy(n.astype(np.float32)) for n in numbers)
    with torch.no_grad():
        return model(shape, expression, jaw).numpy(), model(shape, expression * 0).numpy()


def random_motion(rng: np.random.Generator) -> Motion:
    """5 to 20 degrees about any axis and up to 4 cm."""
    axis, way = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_rotvec(np.radians(rng.uniform(5, 20)) * axis).as_matrix()
    motion[:3, 3] = rng.uniform(0, 0.04) * way
    return motion


def change_of_form(rng: np.random.Generator, points: np.ndarray, rigid: np.ndarray) -> np.ndarray:
    """Random waves of about 30 cm over the points, `CHANGE_M` strong, no rigid part over `rigid`."""
    waves = np.cos(points @ rng.normal(size=(3, 40)) / 0.05 + rng.uniform(0, 2 * np.pi, 40))
    change = waves @ rng.normal(size=(40, 3))
    for _ in range(3):
        change *= CHANGE_M / np.sqrt((change**2).sum(axis=1).mean())
        back = register_points((points + change)[rigid], points[rigid]).transform
        change = apply_transform(back, points + change) - points
    return change


def pairs(asset: FaceAsset) -> list[Pair]:
    """The head pairs of this module's first lines."""
    rigid, found = rigid_vertices(asset), []
    for index, (expressive, neutral) in enumerate(zip(*heads(asset, PAIRS, "pairs"), strict=True)):
        rng, neutral = stream(0, "bench", "align", "pair", index), neutral.astype(np.float64)
        motion = random_motion(rng)
        formed = expressive + change_of_form(rng, neutral, rigid)
        found.append(Pair(posed=apply_transform(np.linalg.inv(motion), formed), neutral=neutral, motion=motion))
    return found


def our_icp(steady: np.ndarray | None) -> Method:
    """The default where `steady` is given, and what the whole head gives."""
    return lambda posed, neutral, _: iterative_closest_point(posed, neutral, steady=steady).transform


def small_gicp_icp(kind: str, steady: np.ndarray) -> Method:
    """small_gicp's other kinds in our two steps: a sparse choice of all points, then the steady ones."""
    import small_gicp

    def register(posed: np.ndarray, neutral: np.ndarray, start: Motion) -> Motion:
        target, tree = small_gicp.preprocess_points(neutral, downsampling_resolution=1e-6, num_threads=1)
        for points, turn, shift in ((posed[::4], 2e-3, 1e-4), (posed[steady], 1e-5, 1e-6)):
            source, _ = small_gicp.preprocess_points(
                np.ascontiguousarray(points), downsampling_resolution=1e-6, num_threads=1
            )
            start = small_gicp.align(
                target, source, tree, start, registration_type=kind, num_threads=1, max_iterations=100,
                rotation_epsilon=turn, translation_epsilon=shift,
            ).T_target_source  # fmt: skip
        return start

    return register


def open3d_icp(is_to_plane: bool, *steps: np.ndarray) -> Method:
    """open3d's ICP run to convergence, once for each choice of points."""
    import open3d

    parts = open3d.pipelines.registration
    to_plane, to_point = parts.TransformationEstimationPointToPlane(), parts.TransformationEstimationPointToPoint()
    until = parts.ICPConvergenceCriteria(relative_fitness=1e-9, relative_rmse=1e-9, max_iteration=500)

    def cloud(points: np.ndarray) -> open3d.geometry.PointCloud:
        return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))

    def register(posed: np.ndarray, neutral: np.ndarray, start: Motion) -> Motion:
        target = cloud(neutral)
        if is_to_plane:
            target.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(10))
        for chosen in steps:
            kind = to_plane if is_to_plane else to_point
            start = parts.registration_icp(cloud(posed[chosen]), target, 1.0, start, kind, until).transformation
        return start

    return register


def compared(method: Method, cases: list[Pair]) -> dict[str, float]:
    """Median seconds and accuracy of a method; each pair's time is the shortest of three."""
    seconds, errors, angles = [], [], []
    for pair in cases:
        start = np.eye(4)
        start[:3, 3] = pair.neutral.mean(axis=0) - pair.posed.mean(axis=0)
        found = method(pair.posed, pair.neutral, start)
        seconds.append(best_seconds(lambda pair=pair, start=start: method(pair.posed, pair.neutral, start), 3))
        off = apply_transform(found, pair.posed) - apply_transform(pair.motion, pair.posed)
        errors.append(np.linalg.norm(off, axis=1))
        angles.append(np.degrees(Rotation.from_matrix(found[:3, :3] @ pair.motion[:3, :3].T).magnitude()))
    return {
        "ms": round(float(np.median(seconds)) * 1e3, 3),
        "median_vertex_error_mm": round(float(np.median(errors)) * 1e3, 3),
        "max_vertex_error_mm": round(float(np.max(errors)) * 1e3, 3),
        "median_degrees": round(float(np.median(angles)), 3),
        "worst_degrees": round(float(np.max(angles)), 3),
        "starts_above_1_degree": int((np.array(angles) > 1).sum()),
    }


def icp_figures() -> dict[str, object]:
    """Every ICP and Kabsch on the same pairs, and the ratios that must hold; to be run in a process of its own."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before open3d counts the cores
    asset = FaceAsset.load(FACE_MODEL)
    cases, rigid, whole = pairs(asset), rigid_vertices(asset), np.arange(asset.n_vertices)
    rows = {
        "ours": compared(our_icp(rigid), cases),
        "ours, whole head": compared(our_icp(None), cases),
        "open3d point to point": compared(open3d_icp(False, whole), cases),
        "open3d point to point, whole head then rigid regions": compared(open3d_icp(False, whole, rigid), cases),
        "open3d point to plane": compared(open3d_icp(True, whole), cases),
        "open3d point to plane, whole head then rigid regions": compared(open3d_icp(True, whole, rigid), cases),
        "small_gicp point to plane, our steps": compared(small_gicp_icp("PLANE_ICP", rigid), cases),
        "small_gicp GICP, our steps": compared(small_gicp_icp("GICP", rigid), cases),
        "kabsch, known correspondence": compared(
            lambda posed, neutral, _: register_points(posed[rigid], neutral[rigid]).transform, cases
        ),
    }
    ours, theirs, kabsch = (rows[name] for name in ("ours", "open3d point to point", "kabsch, known correspondence"))
    return {
        "icp": rows,
        "icp_speed_against_open3d": round(theirs["ms"] / ours["ms"], 2),
        "icp_error_against_open3d": round(ours["median_vertex_error_mm"] / theirs["median_vertex_error_mm"], 2),
        "icp_speed_against_open3d_in_two_steps": round(
            rows["open3d point to point, whole head then rigid regions"]["ms"] / ours["ms"], 2
        ),
        "kabsch_speed_against_our_icp": round(ours["ms"] / kabsch["ms"], 1),
        "kabsch_speed_against_open3d": round(theirs["ms"] / kabsch["ms"], 1),
    }


def posed_meshes(asset: FaceAsset) -> np.ndarray:
    """Different posed heads, (DISTINCT, V, 3) float32."""
    rng, still = stream(0, "bench", "align", "motions"), heads(asset, DISTINCT, "meshes")[0]
    return np.stack([apply_transform(random_motion(rng), mesh) for mesh in still])


def shards(distinct: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """All meshes in pieces of `size`."""
    for first in range(0, MESHES, size):
        yield np.take(distinct, np.arange(first, min(first + size, MESHES)) % len(distinct), axis=0)


def stream_of_meshes(size: int) -> dict[str, float]:
    """Seconds and peak memory of aligning all meshes, `size` at once; to be run in a process of its own."""
    asset = FaceAsset.load(FACE_MODEL)
    distinct = posed_meshes(asset)
    runs = []
    for _ in range(3):
        seconds = 0.0
        for shard in shards(distinct, size):
            start = time.perf_counter()
            align_meshes(shard, asset)
            seconds += time.perf_counter() - start
        runs.append(seconds)
    return {"seconds": min(runs), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def one_by_one(asset: FaceAsset) -> float:
    """Seconds that a loop over `MESHES` meshes would take: numpy's Kabsch and product for each."""
    meshes, rigid = next(shards(posed_meshes(asset), LOOPED)), rigid_vertices(asset)
    goal = asset.template[rigid]

    def loop() -> None:
        for mesh in meshes:
            apply_transform(register_points(mesh[rigid], goal).transform, mesh)

    return best_seconds(loop, 3) * MESHES / len(meshes)


def main() -> None:
    """Measure and record."""
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(1) as pool:
        whole = pool.apply(stream_of_meshes, (MESHES,))
    with fresh.Pool(1) as pool:
        parts = pool.apply(stream_of_meshes, (SHARD,))
    loop = one_by_one(FaceAsset.load(FACE_MODEL))
    with fresh.Pool(1) as pool:
        comparison = pool.apply(icp_figures)
    figures = {
        "meshes": MESHES,
        "align_meshes_seconds": round(whole["seconds"], 3),
        "align_meshes_peak_mib": round(whole["peak_mib"]),
        "by_shards_seconds": round(parts["seconds"], 3),
        "by_shards_peak_mib": round(parts["peak_mib"]),
        "numpy_loop_seconds": round(loop, 3),
        "align_meshes_against_loop": round(loop / whole["seconds"], 2),
        "pairs": PAIRS,
        **comparison,
    }
    record("align", figures, ["numpy", "small-gicp", "open3d-cpu"])


if __name__ == "__main__":
    main()
