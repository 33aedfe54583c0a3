"""Checking a released dataset of whichever kind."""

from pathlib import Path

from ecavatar.emolib.schema import INFO as EMOLIB_INFO
from ecavatar.face.model import FaceAsset
from ecavatar.vocateeth.dataset import INFO as VOCATEETH_INFO


def verify_release(directory: Path, asset: FaceAsset | None = None) -> list[str]:
    """Every way in which a release is not what it says, one sentence each; empty when all is well.

    Args:
        directory: an Emolib or a VOCATeeth, numbered or not.
        asset: the face model; given, what follows from it is computed again, too.
    """
    directory = Path(directory)
    if (directory / EMOLIB_INFO).exists():
        from ecavatar.emolib.verify import verify  # heavy; each kind needs its own only

        return verify(directory, asset)
    if (directory / VOCATEETH_INFO).exists():
        from ecavatar.vocateeth.verify import verify_vocateeth

        return verify_vocateeth(directory, asset)
    kinds = f"{EMOLIB_INFO.as_posix()} (Emolib) nor {VOCATEETH_INFO} (VOCATeeth)"
    return [f"{directory} is no release: it has neither {kinds}. Check the path."]
