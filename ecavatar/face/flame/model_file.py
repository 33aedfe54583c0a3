"""FLAME's model files: what each is, and its arrays.

Read are pickles with or without chumpy and scipy objects inside (2017, 2019, 2020, 2023, 2023 without jaw rotation,
2023 Open) and npz files of the same keys. A basis says what the coefficients mean, so it must be known: the file's
fingerprint tells it, else its content, else the user, else the file's name.

Source:
    Li et al., Learning a model of facial shape and expression from 4D scans, SIGGRAPH Asia 2017; the file's keys as
    the FLAME downloads have them.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ecavatar.errors import AssetMissingError, BasisError, ConfigError, DataError
from ecavatar.face.model import PARENTS
from ecavatar.storage.arrays import read_arrays, write_arrays
from ecavatar.storage.files import sha256_file
from ecavatar.storage.unpickle import ChumpyArray, CscMatrix, array_of, load_npz, load_pickle, names_in_zip

TOPOLOGY = "flame"
"""Tag of FLAME's vertex order, the same for every version."""
BASES = ("flame2017", "flame2019", "flame2020", "flame2023", "flame2023-nojaw", "flame2023-open")
"""Tags of the meanings that FLAME coefficients may have."""
N_VERTICES, N_FACES, N_SHAPE, N_EXPRESSION = 5023, 9976, 300, 100
FINGERPRINTS: Mapping[str, str] = {
    "efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b": "flame2020",
    "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0": "flame2023",
    "b291fcd1": "flame2023-nojaw",
    "e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623": "flame2023-open",
}
"""How the SHA-256 of a published file begins -> its basis."""

_SHAPES = {
    "v_template": (N_VERTICES, 3), "f": (N_FACES, 3), "shapedirs": (N_VERTICES, 3, N_SHAPE + N_EXPRESSION),
    "J_regressor": (5, N_VERTICES), "weights": (N_VERTICES, 5), "kintree_table": (2, 5),
}  # fmt: skip
_POSE_SHAPES = ((N_VERTICES, 3, 36), (36, 3 * N_VERTICES))
_OTHERS = {6890: "SMPL", 10475: "SMPL-X", 778: "MANO", 5118: "a FLAME mesh cut along its texture seams"}
_OPEN_KEY = "supr_expression_metadata"
_LARGEST = 10_000_000  # values in a sparse matrix, so that a hostile shape fills no memory
_SIZE_M = (0.1, 1.0)  # of the template's longest side


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FlameModel:
    """FLAME's own arrays in the names of `FaceAsset`, float32, metres."""

    basis: str
    """One of `BASES`."""
    known_by: str
    """What told the basis: `fingerprint`, `content`, `user` or `name`."""
    template: Float[np.ndarray, "5023 3"]
    faces: Int[np.ndarray, "9976 3"]
    shape_basis: Float[np.ndarray, "5023 3 300"]
    expression_basis: Float[np.ndarray, "5023 3 100"]
    pose_basis: Float[np.ndarray, "5023 3 36"]
    joint_regressor: Float[np.ndarray, "5 5023"]
    skinning: Float[np.ndarray, "5023 5"]

    def save(self, path: Path) -> None:
        """Write the model as an npz without objects; the same model gives the same bytes."""
        write_arrays(path, {name: getattr(self, name) for name in _ARRAYS}, {"basis": self.basis, "by": self.known_by})

    @classmethod
    def load(cls, path: Path) -> "FlameModel":
        """The model that `save` wrote.

        Raises:
            DataError: the file is damaged or no such model.
        """
        arrays, facts = read_arrays(path)
        if set(arrays) != set(_ARRAYS) or facts.get("basis") not in BASES:
            raise DataError(f"{path} is not a converted FLAME model. Run `ecavatar assets add flame FILE` again.")
        return cls(**arrays, basis=facts["basis"], known_by=facts["by"])


_ARRAYS = ("template", "faces", "shape_basis", "expression_basis", "pose_basis", "joint_regressor", "skinning")


def read_flame_model(path: Path, basis: str | None = None) -> FlameModel:
    """The model in a FLAME file.

    Args:
        path: a pickle or npz file as it was downloaded.
        basis: one of `BASES`; needed where the file does not tell.

    Raises:
        AssetMissingError: no such file.
        ConfigError: the file does not tell its basis and `basis` is not given, or is unknown.
        BasisError: `basis` contradicts what the file is.
        DataError: the file is damaged, hostile, or another model; the message lists every contradiction.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Give the path of the FLAME model file as you downloaded it.")
    content = _content(path)
    arrays, problems = _arrays(path, content)
    problems += [] if problems else _value_problems(arrays)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise DataError(f"{path} is not a FLAME model:\n{listed}\nDownload it again from flame.is.tue.mpg.de.")
    known_basis, known_by = recognise_basis(path, content, basis)
    shapes, pose = arrays["shapedirs"], arrays["posedirs"]
    return FlameModel(
        basis=known_basis,
        known_by=known_by,
        template=_float32(arrays["v_template"]),
        faces=np.ascontiguousarray(arrays["f"], dtype=np.int32),
        shape_basis=_float32(shapes[..., :N_SHAPE]),
        expression_basis=_float32(shapes[..., N_SHAPE:]),
        pose_basis=_float32(pose if pose.ndim == 3 else pose.T.reshape(N_VERTICES, 3, 36)),
        joint_regressor=_float32(arrays["J_regressor"]),
        skinning=_float32(arrays["weights"]),
    )


def recognise_basis(path: Path, content: Mapping[str, object], said: str | None) -> tuple[str, str]:
    """The basis of a model file, and what told it (`fingerprint`, `content`, `user`, `name`).

    Args:
        path: the file.
        content: what it holds, by name.
        said: what the user says it is.

    Raises:
        ConfigError: nothing tells, or `said` is no basis, or the file holds a male or female model.
        BasisError: `said` contradicts fingerprint or content.
    """
    options = ", ".join(BASES)
    if said is not None and said not in BASES:
        raise ConfigError(f"unknown basis {said!r}; expected one of: {options}.")
    if found := re.match(r"(fe)?male", path.name, re.IGNORECASE):
        raise ConfigError(
            f"{path} is the {found[0].lower()} model; its coefficients mean something else than those of EMICA and of "
            "every FLAME basis here. Give the generic model of the same download."
        )
    certain = _certain_basis(path, content)
    if certain is not None:
        if said not in (None, certain[0]):
            raise BasisError(
                f"{path} was said to be {said}, but its {certain[1]} is that of {certain[0]}. Leave --basis away, or "
                "give the file that you mean."
            )
        return certain
    if said is not None:
        return said, "user"
    if hinted := _hinted_basis(path):
        return hinted, "name"
    raise ConfigError(
        f"{path} is a FLAME model, but the files of several years look alike and this one is not known. Say which it "
        f"is with --basis: {options} (the year of the download; flame2020 for most EMICA checkpoints)."
    )


def _certain_basis(path: Path, content: Mapping[str, object]) -> tuple[str, str] | None:
    digest = sha256_file(path)
    for start, basis in FINGERPRINTS.items():
        if digest.startswith(start):
            return basis, "fingerprint"
    return ("flame2023-open", "content") if _OPEN_KEY in content else None


def _hinted_basis(path: Path) -> str | None:
    """What the file's name, or else its folder's (`FLAME2020/generic_model.pkl`), says."""
    for name in (path.name, path.absolute().parent.name):
        if found := re.search(r"flame[ _-]?(2017|2019|2020|2023)(.*)", name, re.IGNORECASE):
            year, rest = found[1], found[2].lower()
            if year != "2023":
                return f"flame{year}"
            is_without_jaw = re.search(r"no[ _-]?jaw", rest) is not None
            return "flame2023-nojaw" if is_without_jaw else "flame2023-open" if "open" in rest else "flame2023"
    return None


def _content(path: Path) -> Mapping[str, object]:
    if zipfile.is_zipfile(path):
        if pickles := [name for name in names_in_zip(path) if name.endswith(".pkl")]:
            raise ConfigError(f"{path} is an archive; unpack it and add {pickles[0]} from it.")
        return load_npz(path)
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {type(content).__name__}, not FLAME's arrays by name. Give the model file.")
    return content


def _arrays(path: Path, content: Mapping[str, object]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The model's arrays, and what is wrong with their presence and shapes."""
    wanted = (*_SHAPES, "posedirs")
    problems = [f"{name} is missing" for name in wanted if name not in content]
    if problems:
        return {}, [*problems, f"it has {', '.join(sorted(map(str, content))) or 'nothing'}"]
    arrays = {name: _array(path, name, content[name]) for name in wanted}
    count = len(arrays["v_template"]) if arrays["v_template"].ndim else 0
    if count != N_VERTICES:
        other = f": it is {_OTHERS[count]}" if count in _OTHERS else ""
        return arrays, [f"it has {count} vertices, FLAME has {N_VERTICES}{other}"]
    for name, array in arrays.items():
        allowed = (_SHAPES[name],) if name in _SHAPES else _POSE_SHAPES
        if array.shape not in allowed:
            problems.append(f"{name}: expected shape {' or '.join(map(str, allowed))}, got {array.shape}")
        elif array.dtype.kind not in "fiu":
            problems.append(f"{name}: expected numbers, got {array.dtype}")
    return arrays, problems


def _array(path: Path, name: str, value: object) -> np.ndarray:
    if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.item()  # numpy.savez puts what is no array into an array of one object
    try:
        if not isinstance(value, CscMatrix):
            return array_of(value.x if isinstance(value, ChumpyArray) else value)
        if not 0 < value.shape[0] * value.shape[1] <= _LARGEST:
            raise DataError(f"a sparse matrix of shape {value.shape}; the file is damaged.")
        return value.to_dense()
    except (DataError, AttributeError, TypeError, IndexError) as error:  # objects made up of other things
        raise DataError(f"{path}: {name}: {error} Download it again from flame.is.tue.mpg.de.") from None


def _value_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    problems = [f"{name}: not finite" for name, array in arrays.items() if not np.isfinite(array).all()]
    if problems:
        return problems
    faces, weights = arrays["f"], arrays["weights"]
    if faces.dtype.kind == "f" or faces.min() < 0 or faces.max() >= N_VERTICES:
        problems.append(f"f: expected vertex indices below {N_VERTICES}")
    if weights.min() < 0 or np.abs(weights.sum(axis=1) - 1).max() > 1e-3:
        problems.append("weights: expected rows of weights, not negative, that sum to 1")
    parents = tuple(int(parent) for parent in arrays["kintree_table"][0])
    if parents[0] not in (-1, 2**32 - 1, 2**64 - 1) or parents[1:] != PARENTS[1:]:
        problems.append(f"kintree_table: expected the parents {PARENTS}, got {parents}")
    size = float(np.ptp(arrays["v_template"], axis=0).max())
    if not _SIZE_M[0] < size < _SIZE_M[1]:
        problems.append(f"v_template: a head measures {_SIZE_M[0]} to {_SIZE_M[1]} m, this one {size:g}")
    return problems


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)
