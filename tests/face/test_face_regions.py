"""Named vertex sets."""

import numpy as np
import pytest

from ecavatar.errors import DataError
from ecavatar.face.regions import fingerprint, fusion_regions, region


def test_fusion_regions_hold_every_vertex_once(asset):
    regions = fusion_regions(asset)
    together = np.concatenate([regions.lips, regions.chin, regions.face, regions.outside])
    np.testing.assert_array_equal(np.sort(together), np.arange(asset.n_vertices))


def test_unknown_region_is_refused_with_the_known_ones(asset):
    with pytest.raises(DataError, match="eye_region"):
        region(asset, "moustache")


def test_fingerprint_depends_on_the_set_only():
    assert fingerprint(np.array([3, 1, 2])) == fingerprint(np.array([1, 2, 3, 3], dtype=np.int64))
    assert fingerprint(np.array([1, 2, 3])) != fingerprint(np.array([1, 2, 4]))
    assert len(fingerprint(np.array([], dtype=int))) == 16
