"""Laws of comparing two releases, and of the version numbers that a comparison allows."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecavatar.emolib.compare import compare
from ecavatar.emolib.dataset import read_emolib
from ecavatar.errors import AssetMissingError, ConfigError, DataError
from ecavatar.storage.files import read_json, write_json
from ecavatar.storage.version import Version
from tests.fabricate_emolib import LEAN, changed_column, fabricated_faces, write_release


@pytest.fixture
def faces(small_face):
    return fabricated_faces(small_face, 48)


@pytest.fixture
def release(tmp_path, small_face, faces):
    return write_release(tmp_path / "before", small_face, faces)


def test_a_release_differs_in_nothing_from_itself(release):
    changes = compare(release, release)
    assert changes.items.kept == changes.sources.kept == 48
    for ids in (changes.items, changes.sources):
        assert ids.added == ids.removed == ids.changed == ()
    assert not changes.changed_columns
    assert not changes.tags
    assert changes.columns_added == changes.columns_removed == changes.columns_retyped == changes.breaking == ()
    assert all(group.before == group.after for group in changes.groups)


def test_files_and_order_of_rows_make_no_difference(tmp_path, small_face, faces, release):
    shuffled = faces.take(pa.array(np.random.default_rng(1).permutation(48)))
    other = write_release(tmp_path / "after", small_face, shuffled, LEAN.model_copy(update={"rows_per_file": 7}))
    assert len(list((other / "data" / "coefficients").iterdir())) > 2
    changes = compare(release, other)
    assert changes.items.kept == changes.sources.kept == 48


def test_added_removed_and_changed_rows_are_found_by_id(tmp_path, small_face, faces, release):
    new = fabricated_faces(small_face, 60)
    is_new = [source not in set(faces["source_id"].to_pylist()) for source in new["source_id"].to_pylist()]
    more = pa.concat_tables([faces.slice(2), new.filter(pa.array(is_new))])
    arousal = more["arousal"].to_pylist()
    arousal[3] += 0.25
    expression = more["expression"].to_pylist()
    expression[3], expression[5] = [0.0] * 4, [1.0] * 4
    more = changed_column(changed_column(more, "arousal", arousal), "expression", expression)
    changes = compare(release, write_release(tmp_path / "after", small_face, more))
    ids, sources = more["item_id"].to_pylist(), more["source_id"].to_pylist()
    assert changes.items.removed == tuple(sorted(faces["item_id"].to_pylist()[:2]))
    assert changes.items.added == tuple(sorted(set(ids) - set(faces["item_id"].to_pylist())))
    assert len(changes.items.added) == 12
    assert changes.items.changed == tuple(sorted([ids[3], ids[5]]))
    assert changes.sources.changed == tuple(sorted([sources[3], sources[5]]))
    assert changes.items.kept == 44
    assert changes.changed_columns == {"arousal": 1, "expression": 2}
    assert changes.breaking == ()


def test_renumbered_items_are_the_same_photographs(tmp_path, small_face, faces, release):
    renamed = changed_column(faces, "item_id", [f"x{name}" for name in faces["item_id"].to_pylist()])
    changes = compare(release, write_release(tmp_path / "after", small_face, renamed))
    assert len(changes.items.added) == len(changes.items.removed) == 48
    assert changes.sources.kept == 48
    assert changes.sources.added == changes.sources.removed == changes.sources.changed == ()


def test_a_swap_of_two_labels_changes_both_photographs(tmp_path, small_face, faces, release):
    """Two items exchange ids: by item both changed, by photograph neither."""
    ids = faces["item_id"].to_pylist()
    a, b = ids.index("happy_1_000000"), ids.index("happy_1_000001")
    ids[a], ids[b] = ids[b], ids[a]
    changes = compare(release, write_release(tmp_path / "after", small_face, changed_column(faces, "item_id", ids)))
    assert changes.items.changed == ("happy_1_000000", "happy_1_000001")
    assert changes.sources.kept == 48


def test_statistics_are_those_of_the_rows(tmp_path, small_face, faces, release):
    fewer = faces.filter(pa.array([name != "sad_2_000000" for name in faces["item_id"].to_pylist()]))
    changes = compare(release, write_release(tmp_path / "after", small_face, fewer))
    assert len(changes.groups) == 24
    frames = [read_emolib(path).to_pandas() for path in (release, tmp_path / "after")]
    for group in changes.groups:
        for frame, found in zip(frames, (group.before, group.after), strict=True):
            rows = frame[(frame["emotion"] == group.emotion) & (frame["level"] == group.level)]
            assert found.items == len(rows)
            assert found.arousal == pytest.approx(rows["arousal"].mean(), rel=1e-6)
            norms = [np.linalg.norm(shape) for shape in rows["shape"]]
            assert found.shape_norm == pytest.approx(np.mean(norms), rel=1e-6)
    assert {(g.emotion, g.level) for g in changes.groups if g.before != g.after} == {("sad", 2)}


def test_unknown_values_equal_unknown_values(tmp_path, small_face, faces):
    unknown = changed_column(faces, "residual_mm", [None] * 24 + faces["residual_mm"].to_pylist()[24:])
    paths = [write_release(tmp_path / name, small_face, unknown) for name in ("a", "b")]
    assert compare(*paths).items.kept == 48
    known = write_release(tmp_path / "c", small_face, faces)
    assert compare(paths[0], known).changed_columns == {"residual_mm": 24}


def rewritten(release, out, change):
    """A copy of `release` whose coefficient tables went through `change`."""
    shutil.copytree(release, out)
    for path in (out / "data" / "coefficients").iterdir():
        pq.write_table(change(pq.read_table(path)), path)
    return out


def test_lost_and_retyped_columns_break_what_used_the_release(tmp_path, release):
    other = rewritten(
        release,
        tmp_path / "after",
        lambda table: changed(table.drop_columns("valence"), "arousal", pa.float64()).append_column(
            "mood", pa.array([1] * table.num_rows)
        ),
    )
    changes = compare(release, other)
    assert changes.columns_removed == ("coefficients/valence",)
    assert changes.columns_retyped == ("coefficients/arousal",)
    assert changes.columns_added == ("coefficients/mood",)
    assert len(changes.breaking) == 2
    assert changes.items.kept == 48  # by the columns that both have
    assert all(group.after.valence is None for group in changes.groups)


def changed(table, name, kind):
    return table.set_column(table.column_names.index(name), name, table[name].cast(kind))


def test_another_basis_or_schema_breaks_and_a_new_config_does_not(tmp_path, small_face, faces, release):
    meshes = write_release(tmp_path / "meshes", small_face, faces, LEAN.model_copy(update={"vertices": "float32"}))
    changes = compare(release, meshes)
    assert "vertices/vertices_m" in changes.columns_added
    assert changes.breaking == ()
    assert compare(meshes, release).breaking != ()
    for key, value in (("basis", "flame2020"), ("schema_version", "99.0.0")):
        other = tmp_path / key
        shutil.copytree(release, other)
        write_json(other / "meta" / "info.json", read_json(other / "meta" / "info.json") | {key: value})
        assert any(value in reason for reason in compare(release, other).breaking)


def test_meshes_that_were_not_fetched_are_not_taken_for_new(tmp_path, small_face, faces):
    with_meshes = LEAN.model_copy(update={"vertices": "float32"})
    whole = write_release(tmp_path / "whole", small_face, faces, with_meshes)
    fetched = shutil.copytree(whole, tmp_path / "fetched", ignore=shutil.ignore_patterns("vertices"))
    changes = compare(fetched, whole)
    assert changes.columns_added == changes.columns_removed == changes.columns_retyped == ()


def test_the_text_counts_names_and_warns(tmp_path, small_face, faces, release):
    other = rewritten(
        write_release(tmp_path / "x", small_face, faces.slice(30)),
        tmp_path / "after",
        lambda table: table.drop_columns("valence"),
    )
    changes = compare(release, other)
    text = changes.as_markdown("1.0.0", "2.0.0")
    assert text.startswith("# Changes from 1.0.0 to 2.0.0\n")
    assert "column coefficients/valence is gone" in text
    assert "| items | 0 | 30 | 0 | 18 |" in text
    assert "and 10 more (changes.json)" in text
    assert json.loads(json.dumps(changes.to_json()))["items"]["removed"] == list(changes.items.removed)
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in table[-24:]}) == 1


def test_what_is_no_release_is_refused(tmp_path, release):
    with pytest.raises(AssetMissingError):
        compare(tmp_path / "absent", release)
    empty = tmp_path / "empty"
    write_json(empty / "meta" / "info.json", {"schema_version": "1.0.0"})
    with pytest.raises(AssetMissingError, match="no Emolib"):
        compare(empty, release)
    anonymous = rewritten(release, tmp_path / "anonymous", lambda table: table.drop_columns("source_id"))
    with pytest.raises(DataError, match="source_id"):
        compare(anonymous, release)
    broken = tmp_path / "broken"
    shutil.copytree(release, broken)
    next((broken / "data" / "coefficients").iterdir()).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="Parquet"):
        compare(broken, release)


# --- version numbers --------------------------------------------------------------------------------------------------

ASCENDING = ["0.0.1", "0.1.0", "0.9.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta",
             "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.10", "1.10.0", "2.0.0"]  # fmt: skip


def test_versions_are_ordered_as_semver_says():
    """The chain of pre-releases is the example of semver.org, item 11."""
    versions = [Version.parse(text) for text in ASCENDING]
    assert all(a < b for i, a in enumerate(versions) for b in versions[i + 1 :])
    assert [str(version) for version in versions] == ASCENDING


@given(st.tuples(*[st.integers(0, 10**6)] * 3))
def test_a_plain_version_is_what_it_spells(numbers):
    text = ".".join(map(str, numbers))
    assert str(Version.parse(text)) == text
    assert Version.parse(text) == Version(*numbers)


WRONG = ["", "1", "1.0", "1.0.0.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+build", " 1.0.0", "1.0.0\n",
         "１.0.0"]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_other_spellings_are_refused(text):
    with pytest.raises(ConfigError, match="semver"):
        Version.parse(text)


@pytest.mark.parametrize(
    ("previous", "version", "may"),
    [
        ("1.2.3", "2.0.0", True),
        ("1.2.3", "2.0.0-rc.1", True),
        ("1.2.3", "1.3.0", False),
        ("0.2.3", "0.3.0", True),
        ("0.2.3", "0.2.4", False),
        ("0.2.3", "1.0.0", True),
    ],
)
def test_only_a_new_major_version_may_break(previous, version, may):
    assert Version.parse(version).may_break(Version.parse(previous)) is may
