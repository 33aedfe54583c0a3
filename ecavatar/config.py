"""params.yaml as frozen models: the only source of numbers that change results.

Every key is typed and checked; an unknown key is refused with its nearest known neighbour. A profile in params.yaml has
exactly the sections of `ProfileSettings`, and a stage reads only its own section (dvc.yaml tracks the same one).
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ecavatar.errors import AssetMissingError, ConfigError


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversion from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# --- sections: one class per stage, in pipeline order -------------------------------------------------------------------


class SelectSettings(Section):
    """`select_images`: which AffectNet images become Emolib, and which feed FuNet."""

    per_level: Annotated[int, Field(ge=1)]
    """Images drawn per category and level (the paper: 500)."""
    levels: Literal["equal"]
    """Rule that cuts arousal into three levels; `equal` is the paper's."""
    pool: Annotated[int, Field(ge=0)]
    """Upper bound of non-neutral images, disjoint from Emolib, kept for FuNet (the paper: 81223)."""
    max_rejects: Annotated[float, Field(ge=0, le=1)]
    """The stage fails above this share of rejected records."""


class UnitCalibration(Section):
    """How one MediaPipe expression score becomes an ARKit weight: `gain * (score - offset)`, cut to 0..1."""

    offset: Annotated[float, Field(ge=-1, le=1)]
    gain: Annotated[float, Field(ge=0, le=10)]


class ReconstructSettings(Section):
    """`reconstruct_faces`: photograph -> coefficients. Sigmas say how far a quantity is expected to stray."""

    backend: Literal["landmarks"]
    """Landmark fitter on MediaPipe (the paper: EMICA)."""
    shape_components: Annotated[int, Field(ge=1, le=300)]
    """Leading shape components that landmarks determine; the others stay 0."""
    shape_sigma: Annotated[float, Field(gt=0)]
    expression_sigma: Annotated[float, Field(gt=0)]
    score_sigma: Annotated[float, Field(gt=0)]
    """Error of MediaPipe's expression scores, as an ARKit weight."""
    jaw_sigma: Annotated[float, Field(gt=0)]
    """Radians."""
    landmark_sigma_mm: Annotated[float, Field(gt=0)]
    depth_sigma_mm: Annotated[float, Field(gt=0)]
    max_iterations: Annotated[int, Field(ge=1)]
    max_residual_mm: Annotated[float, Field(gt=0)]
    """A face whose landmarks are missed by more is rejected."""
    units: dict[str, UnitCalibration]
    """Calibrated ARKit units; the others use the score as it is."""
    alignment: Literal["procrustes", "icp"]
    """Registration to pose zero (the paper: icp)."""
    shards: Annotated[int, Field(ge=1)]
    max_rejects: Annotated[float, Field(ge=0, le=1)]


class PredictSettings(Section):
    """`predict`: how lips and emotion become one face."""

    transition_seconds: Annotated[float, Field(ge=0)]
    """The paper's t_trans: half the length of the blend between two emotion windows."""
    emotional_identity: Literal["own", "retrieved"]
    """`retrieved`: M_emo is the Emolib item's own mesh (the paper). `own`: its expression on M_in's shape."""
    fusion: Literal["funet", "blend"]
    """`funet`: the network (the paper). `blend`: the closed-form minimiser of its loss."""


class BenchmarkSettings(Section):
    """`benchmark`: confidence intervals."""

    bootstrap_samples: Annotated[int, Field(ge=1)]
    """Repetitions of the bootstrap over subjects."""


class ReportSettings(Section):
    """`report`: pictures."""

    picture_px: Annotated[int, Field(ge=64)]
    """Edge of one rendered face."""


class ProfileSettings(Section):
    """All sections of one profile."""

    select: SelectSettings
    reconstruct: ReconstructSettings
    predict: PredictSettings
    benchmark: BenchmarkSettings
    report: ReportSettings


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    profiles: list[Literal["sample", "full"]]
    studies: list[str]
    sample: ProfileSettings
    full: ProfileSettings

    def profile(self, name: str) -> ProfileSettings:
        """The settings of profile `name`.

        Raises:
            ConfigError: no such profile.
        """
        if name not in ("sample", "full"):
            raise ConfigError(f"unknown profile {name!r}; expected sample or full.")
        return self.sample if name == "sample" else self.full


def load_params(path: Path) -> Params:
    """params.yaml, checked.

    Raises:
        AssetMissingError: the file is not there.
        ConfigError: not YAML, or keys or values are wrong; every problem is listed, unknown keys with their nearest
            known neighbour.
    """
    if not path.is_file():
        raise AssetMissingError(f"{path} not found. Run from the repository root, or give --params FILE.")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem)}" for problem in error.errors())
        raise ConfigError(f"{path} has {error.error_count()} problem(s):\n{problems}") from None


def _describe(problem: dict) -> str:  # pydantic's ErrorDetails
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']} (got {problem['input']!r})"
    *parents, key = map(str, problem["loc"])
    near = difflib.get_close_matches(key, _known_keys(parents), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{where}: unknown key{hint}"


def _known_keys(parents: list[str]) -> list[str]:
    model: type[BaseModel] = Params
    for name in parents:
        field = model.model_fields.get(name)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
