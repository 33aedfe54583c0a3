"""The sample corpora are read back by the readers of the originals, and their truth fits them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from ecavatar.config import CorporaSettings
from ecavatar.corpora.affectnet import COLUMNS, read_annotations
from ecavatar.corpora.mead import list_clips as list_mead
from ecavatar.corpora.ravdess import read_listing
from ecavatar.corpora.vocaset import Vocaset, vocaset_splits
from ecavatar.emotion import LEVELS, Emotion
from ecavatar.face.landmarks import ibug68_points
from ecavatar.rendering.video import read_frames, video_facts
from ecavatar.sample import affectnet, mead, ravdess, vocaset
from ecavatar.sample.appearance import draw_appearance, paint
from ecavatar.sample.corpora import CorporaBuild, CorporaPaths, Part
from ecavatar.sample.expressions import emotion_weights
from ecavatar.sample.head import build_open_head
from ecavatar.sample.world import SampleWorld, truth_table
from ecavatar.seeding import stream
from ecavatar.storage.parquet import vector_array

SETTINGS = CorporaSettings(
    affectnet_images=40, affectnet_px=64, vocaset_sentences=1, ravdess_actors=2, mead_actors=2, film_px=64
)


@pytest.fixture(scope="module")
def world() -> SampleWorld:
    return SampleWorld(asset=build_open_head(), seed=5)


def _files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# --- looks ---------------------------------------------------------------------------------------------------------


def test_texels_know_where_they_are(world: SampleWorld) -> None:
    layers, points = world.canvas.layers, ibug68_points(world.asset, world.asset.template)
    lips = layers["lips"] > 0.9
    assert lips.sum() > 500
    assert abs(layers["x"][lips].mean()) < 0.002
    assert points[8, 1] < layers["y"][lips].mean() < points[33, 1]
    brow = np.abs(layers["brow_across_mm"]) < 2
    assert layers["y"][brow].min() > points[36:48, 1].max()
    assert world.canvas.uv.min() >= 0
    assert world.canvas.uv.max() <= 1
    inner, forehead = (world.asset.regions[name] for name in ("inner_mouth", "forehead"))
    assert np.median(world.canvas.openness[inner]) < 0.2
    assert np.median(world.canvas.openness[forehead]) > 0.8


def test_brows_pupils_and_lips_stand_out_from_any_skin(world: SampleWorld) -> None:
    layers = world.canvas.layers
    places = {
        "skin": (layers["cheek"] > 0.8),
        "brow": (np.abs(layers["brow_across_mm"] + 1.5) < 1) & (np.abs(layers["brow_along"] - 0.5) < 0.2),
        "pupil": layers["gaze_mm"] < 1.5,
        "white": (layers["gaze_mm"] > 7) & (layers["gaze_mm"] < 9),
    }
    for person in range(12):
        image = paint(world.canvas, draw_appearance(stream(1, person))).texture.image.mean(axis=-1)
        light = {name: float(image[place].mean()) for name, place in places.items()}
        assert light["brow"] < 0.6 * light["skin"]
        assert light["pupil"] < 0.03
        assert light["white"] > 10 * light["pupil"]


def test_people_range_from_dark_to_light() -> None:
    skins = np.array([np.mean(draw_appearance(stream(2, person)).skin) for person in range(60)])
    assert skins.min() < 0.1
    assert skins.max() > 0.5


# --- AffectNet -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces(world: SampleWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[affectnet.FaceItem], list]:
    root = tmp_path_factory.mktemp("affectnet")
    items = affectnet.plan_faces(SETTINGS, world)
    lines, truths = affectnet.make_faces(world, items, SETTINGS, root)
    affectnet.write_lists(items, lines, root)
    return root, items, truths


def test_affectnet_is_read_back_with_its_blemishes(faces: tuple[Path, list[affectnet.FaceItem], list]) -> None:
    root, items, _ = faces
    read = read_annotations(root)
    assert not read.rejects
    table = read.table.set_index("source_id")
    assert len(table) == len(items) == SETTINGS.affectnet_images
    for item in items:
        row = table.loc[item.source_id]
        assert row["split"] == item.split
        expected = affectnet.CODES.get(item.kind, int(item.emotion))
        assert row["emotion_code"] == expected
        assert np.isnan(row["arousal"]) == (expected > 7)
    assert {suffix for item in items if (suffix := Path(item.source_id).suffix)} == set(affectnet.SUFFIXES)
    lists = root / "Manually_Annotated_file_lists"
    assert (lists / "training.csv").read_text().startswith(",".join(COLUMNS))
    assert not (lists / "validation.csv").read_text().startswith("sub")
    assert "NULL" in (lists / "training.csv").read_text()


def test_affectnet_images_are_whole_cut_off_or_missing_as_planned(
    faces: tuple[Path, list[affectnet.FaceItem], list],
) -> None:
    root, items, _ = faces
    table = read_annotations(root).table.set_index("source_id")
    by_index = {item.index: item for item in items}
    for item in items:
        path = root / table.loc[item.source_id, "path"]
        if item.kind == "missing":
            assert not path.exists()
        elif item.kind == "corrupt":
            with pytest.raises(OSError, match=r"truncated|cannot identify|incorrect|broken"), Image.open(path) as image:
                image.load()
        else:
            with Image.open(path) as image:
                assert image.size == (64, 64)
                assert np.asarray(image).std() > 5
        if item.kind == "duplicate":
            origin = by_index[item.copy_of]
            assert path.read_bytes() == (root / table.loc[origin.source_id, "path"]).read_bytes()


def test_affectnet_landmarks_lie_in_the_box(faces: tuple[Path, list[affectnet.FaceItem], list]) -> None:
    root, _, _ = faces
    for line in (root / "Manually_Annotated_file_lists" / "validation.csv").read_text().splitlines():
        fields = line.split(",")
        if fields[5] != "NULL":
            points = np.array(fields[5].split(";"), dtype=float).reshape(68, 2)
            x, y, width, height = map(int, fields[1:5])
            assert ((points >= (x, y)) & (points <= (x + width, y + height))).all()
            assert points[8, 1] > points[27, 1]  # the chin is below the bridge of the nose


def test_affectnet_truth_covers_every_face(
    world: SampleWorld, faces: tuple[Path, list[affectnet.FaceItem], list]
) -> None:
    _, items, truths = faces
    table = affectnet.face_truth_table(truths)
    assert sorted(table["source_id"].to_pylist()) == sorted(i.source_id for i in items if i.kind != "non_face")
    assert vector_array(table["shape"]).shape[1] == world.asset.n_shape
    assert vector_array(table["weights"]).shape[1] == 52


def test_arousal_tells_intensity(world: SampleWorld, faces: tuple[Path, list[affectnet.FaceItem], list]) -> None:
    root, items, truths = faces
    table = read_annotations(root).table.set_index("source_id")
    size = {truth.source_id: float(np.linalg.norm(truth.weights)) for truth in truths}
    shown, told = [], []
    for item in items:
        if item.kind == "face" and item.emotion is not Emotion.NEUTRAL:
            full = np.linalg.norm(emotion_weights(item.emotion, 1, stream(0)))
            low, high = affectnet.AROUSAL[item.emotion]
            shown.append(size[item.source_id] / full)
            told.append((table.loc[item.source_id, "arousal"] - low) / (high - low))
    assert len(shown) >= 28
    assert np.corrcoef(shown, told)[0, 1] > 0.85


def test_a_face_is_the_same_whoever_makes_it(world: SampleWorld, tmp_path: Path) -> None:
    items = affectnet.plan_faces(SETTINGS, world)[:4]
    together = affectnet.make_faces(world, items, SETTINGS, tmp_path / "a")[0]
    apart = {}
    for item in items[::-1]:
        apart |= affectnet.make_faces(world, [item], SETTINGS, tmp_path / "b")[0]
    assert together == apart
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


# --- VOCASET -------------------------------------------------------------------------------------------------------


def test_vocaset_plan_follows_the_published_split() -> None:
    plans = vocaset.plan_subjects(CorporaSettings.model_validate(SETTINGS.model_dump() | {"vocaset_sentences": 3}))
    assert [plan.subject for plan in plans] == [s for split in vocaset_splits().values() for s in split.subjects]
    assert [name for name, _ in plans[0].sentences] == ["sentence01", "sentence02", "sentence03"]
    assert [name for name, _ in plans[-1].sentences] == ["sentence21", "sentence22", "sentence23"]
    texts = [text for plan in plans for _, text in plan.sentences]
    assert len(set(texts)) == len(texts)


def test_vocaset_is_read_back_and_its_truth_fits(world: SampleWorld, tmp_path: Path) -> None:
    plans = vocaset.plan_subjects(SETTINGS)
    chosen = [plans[0], plans[-1]]
    recordings = [vocaset.record_subject(world, plan, tmp_path / f"{plan.number}.meshes") for plan in chosen]
    vocaset.write_vocaset(recordings, tmp_path)
    corpus = Vocaset.open(tmp_path)
    assert not corpus.rejects
    assert [clip.split for clip in corpus.clips] == ["train", "test"]
    truth = vocaset.jaw_truth_table(recordings).to_pandas()
    hinge = np.flatnonzero(world.asset.skinning[:, 2] > 0.9)
    for clip in corpus.clips:
        vertices = corpus.vertices(clip, 60)
        angle = truth.loc[truth["clip_id"] == clip.clip_id, "jaw_angle"].to_numpy()
        assert len(angle) == len(vertices)
        assert np.abs(vertices[0] - corpus.templates[clip.subject]).max() < 5e-4
        lowering = (corpus.templates[clip.subject] - vertices)[:, hinge, 1].mean(axis=1)
        assert np.corrcoef(lowering, angle)[0, 1] > 0.95
        assert 0.05 < angle.max() < 0.6
        samples, rate = corpus.audio(clip)
        assert len(samples) / rate == pytest.approx(len(vertices) / 60, abs=0.02)
        assert np.abs(samples).max() > 0.05


# --- films ---------------------------------------------------------------------------------------------------------


def test_ravdess_actors_play_every_emotion_at_every_intensity() -> None:
    takes = ravdess.plan_takes(SETTINGS)
    pairs = {(t.emotion, t.level) for t in takes if t.subject == "Actor_02"}
    assert len(takes) == 26
    assert pairs == {(Emotion.NEUTRAL, 2)} | {
        (e, level) for e in Emotion for level in (2, 3) if e not in (Emotion.NEUTRAL, Emotion.CONTEMPT)
    }


def test_mead_actors_share_all_emotions_and_levels_and_are_all_neutral_once() -> None:
    takes = mead.plan_takes(SETTINGS)
    assert {(t.emotion, t.level) for t in takes} == {(Emotion.NEUTRAL, 1)} | {
        (e, level) for e in Emotion for level in LEVELS if e is not Emotion.NEUTRAL
    }
    assert len({t.clip_id for t in takes}) == len(takes)
    assert {t.subject for t in takes if t.emotion is Emotion.NEUTRAL} == {"M003", "W009"}


def test_ravdess_film_is_read_back_and_its_truth_fits(world: SampleWorld, tmp_path: Path) -> None:
    take = next(t for t in ravdess.plan_takes(SETTINGS) if t.emotion is Emotion.NEUTRAL)
    motion = ravdess.make_take(world, take, SETTINGS, tmp_path)
    listing = read_listing(tmp_path)
    assert not listing.rejects
    (clip,) = listing.clips
    assert clip.clip_id == take.clip_id
    assert (clip.emotion, clip.level, clip.subject) == (take.emotion, take.level, take.subject)
    assert clip.video is not None
    frames = list(read_frames(clip.video))
    assert len(frames) == len(motion.expression)
    assert video_facts(clip.video).has_audio
    assert np.abs(motion.expression[0]).max() < 1e-6  # the portrait is a face at rest
    samples, rate = soundfile.read(clip.audio)
    assert rate == 48000
    assert len(samples) / rate == pytest.approx(len(frames) / 30, abs=0.02)
    table = truth_table({take.clip_id: motion})
    assert table["frame"].to_pylist() == list(range(len(frames)))


def test_mead_film_is_read_back_and_the_same_every_time(world: SampleWorld, tmp_path: Path) -> None:
    take = next(t for t in mead.plan_takes(SETTINGS) if t.emotion is Emotion.ANGER)
    for name in ("a", "b"):
        motion = mead.make_take(world, take, SETTINGS, tmp_path / name)
    (clip,) = list_mead(tmp_path / "a")
    assert clip.clip_id == take.clip_id
    assert clip.video is not None
    assert len(list(read_frames(clip.video))) == len(motion.expression)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


# --- all together --------------------------------------------------------------------------------------------------


def test_parts_cover_every_item_once(world: SampleWorld, tmp_path: Path) -> None:
    names = ("affectnet", "vocaset", "ravdess", "mead", "truth")
    build = CorporaBuild(world.asset, SETTINGS, 5, CorporaPaths(**{name: tmp_path / name for name in names}))
    counts = {"affectnet": 40, "vocaset": 12, "ravdess": 26, "mead": 23}
    covered = sorted((part.corpus, item) for part in build.parts for item in range(part.first, part.last))
    assert covered == sorted((corpus, item) for corpus, count in counts.items() for item in range(count))
    assert all(isinstance(part, Part) for part in build.parts)
