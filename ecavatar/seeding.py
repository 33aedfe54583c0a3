"""One seed, many independent random streams, each derived from its name.

A stream depends on the seed and on its name only, so neither the number of workers nor the order of work can change
what is drawn. Nothing here touches a global generator.
"""

import hashlib

import numpy as np


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for the use called `names`, for libraries that want a number."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: object) -> np.random.Generator:
    """The random stream for the use called `names`; equal arguments give equal streams."""
    return np.random.default_rng(derived_seed(seed, *names))
