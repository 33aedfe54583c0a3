"""The mouth that settings name: the open one, or a user's own."""

from pathlib import Path

from ecavatar.errors import AssetMissingError, DataError
from ecavatar.mouth.model import MouthMesh
from ecavatar.mouth.mouth_file import content_name
from ecavatar.mouth.procedural import PROCEDURAL, procedural_mouth


def open_mouth(mouth: str) -> MouthMesh:
    """The mouth called `procedural`, or the one in a file that `ecavatar assets add mouth FILE` made.

    A file's name holds its content's hash, so that settings that name it say which mouth they mean.

    Raises:
        AssetMissingError: no such file.
        DataError: its name and its content do not belong together, or it is not a mouth.
    """
    if mouth == PROCEDURAL:
        return procedural_mouth()
    path = Path(mouth)
    if not path.is_file():
        raise AssetMissingError(
            f"mouth {mouth!r} not found. Expected {PROCEDURAL!r} or a file that `ecavatar assets add mouth FILE` made."
        )
    if path.name != (expected := content_name(path)):
        raise DataError(
            f"{path}: by its content its name should be {expected}; it was changed or renamed. Add it again with "
            "`ecavatar assets add mouth FILE`."
        )
    return MouthMesh.load(path)
