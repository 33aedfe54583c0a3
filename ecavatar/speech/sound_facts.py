"""How a recording is levelled, and what about it a user should know before blaming the lips."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ecavatar.errors import DataError

SILENCE: Final = 1e-4
"""Root mean square below which a recording counts as silent: -80 dB of full scale."""
OFFSET: Final = 0.01
"""Mean above which a recording has a constant offset: 1 % of full scale."""
CLIPPED_SHARE: Final = 1e-3
"""Share of samples at full scale above which a recording counts as clipped; a peak-normalised one has a few."""
_FULL_SCALE: Final = 0.999
_SHORTEST_S: Final = 0.025  # what HuBERT's and wav2vec2's convolutions need for one feature: 400 samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a processor's normalisation takes out of a whole recording."""

    mean: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFacts:
    """One recording in numbers; full scale is 1."""

    seconds: float
    level: Level
    peak: float
    clipped_share: float
    """Share of samples at full scale or beyond."""

    @property
    def rms(self) -> float:
        """Root mean square of the samples around their mean."""
        return self.level.variance**0.5

    @property
    def is_silent(self) -> bool:
        """True below -80 dB: encoders then answer to noise, or to nothing."""
        return self.rms < SILENCE

    def warnings(self) -> list[str]:
        """What is unusual, each with what to do; nothing of it was changed."""
        found = []
        if self.is_silent:
            found.append("the sound is silent (below -80 dB of full scale); the lips have nothing to follow. Check it.")
        if abs(self.level.mean) > OFFSET:
            found.append(
                f"the samples are shifted by {self.level.mean:+.3f} of full scale. Encoders that normalise do not "
                "notice; for others read it with remove_offset=True."
            )
        if self.clipped_share > CLIPPED_SHARE:
            found.append(
                f"{100 * self.clipped_share:.1f} % of the samples are clipped; loud sounds are distorted. Record it "
                "with less gain."
            )
        if self.seconds < _SHORTEST_S:
            found.append(f"{1000 * self.seconds:.0f} ms is shorter than one speech feature (25 ms); silence is added.")
        return found


def measure_sound(blocks: Iterable[NDArray[np.floating]], rate: int) -> SoundFacts:
    """The facts of a recording given in blocks (`audio_blocks`, or `[samples]`), in one pass and constant memory.

    Mean and variance are merged block by block in float64 (Chan, Golub and LeVeque, 1979) and equal those of the whole
    to about 1e-12.

    Raises:
        DataError: no samples.
    """
    count, mean, squares, peak, clipped = 0, 0.0, 0.0, 0.0, 0
    for block in blocks:
        if not len(block):
            continue
        wide = np.asarray(block, dtype=np.float64)
        step = wide.mean() - mean
        squares += wide.var() * len(wide) + step**2 * count * len(wide) / (count + len(wide))
        count += len(wide)
        mean += step * len(wide) / count
        sizes = np.abs(wide)
        peak = max(peak, float(sizes.max()))
        clipped += int((sizes >= _FULL_SCALE).sum())
    if not count:
        raise DataError("no samples to measure; expected at least one. Check that the recording is not empty.")
    return SoundFacts(
        seconds=count / rate,
        level=Level(mean=float(mean), variance=float(squares / count)),
        peak=peak,
        clipped_share=clipped / count,
    )
