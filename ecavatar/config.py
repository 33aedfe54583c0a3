"""params.yaml as frozen models: the only source of numbers that change results.

Every key is typed and checked; an unknown key is refused with its nearest known neighbour. A profile in params.yaml has
exactly the sections of `ProfileSettings`, and a stage reads only its own section (dvc.yaml tracks the same one).
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ecavatar.errors import AssetMissingError, ConfigError

STUDIES = ("mouth",)
"""What params.yaml may list under `studies`."""


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversion from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# --- sections: one class per stage, in pipeline order ---------------------------------------------------------------


class CorporaSettings(Section):
    """`make_corpora`: sizes of the sample world; only the sample profile has it."""

    affectnet_images: Annotated[int, Field(ge=16)]
    """Lines of AffectNet's lists; nine tenths are good faces, evenly over the categories (the original: 450000)."""
    affectnet_px: Annotated[int, Field(ge=64)]
    """Side of the images."""
    vocaset_sentences: Annotated[int, Field(ge=1, le=20)]
    """Sentences of each of the twelve subjects (the original: 40)."""
    ravdess_actors: Annotated[int, Field(ge=1, le=24)]
    """Actors, 13 films each (the original: 24)."""
    mead_actors: Annotated[int, Field(ge=1, le=8)]
    """Actors, who share MEAD's 22 emotions and levels (the original: 60)."""
    film_px: Annotated[int, Field(ge=64, multiple_of=2)]
    """Side of the films."""


class SpeechModelsSettings(Section):
    """`make_speech_models` (sample only): sizes and training of the stand-in HuBERT, wav2vec2 and emotion2vec."""

    threads: Annotated[int, Field(ge=1)]
    """Torch threads; part of the result, since the last bits of sums depend on it."""
    clips: Annotated[int, Field(ge=1)]
    """Training utterances."""
    held_out_clips: Annotated[int, Field(ge=1)]
    """Utterances of other sentences by other speakers, for the figures."""
    channels: Annotated[list[int], Field(min_length=7, max_length=7)]
    """Channels of the seven convolutions (published: 512 each)."""
    hidden: Annotated[int, Field(ge=8)]
    """Width of the transformer (published: 1024 for the large models)."""
    layers: Annotated[int, Field(ge=1)]
    """Transformer layers (published: 24)."""
    heads: Annotated[int, Field(ge=1)]
    """Attention heads (published: 16)."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout inside the transformer (published: 0.1)."""
    batch: Annotated[int, Field(ge=1)]
    """Utterances per step."""
    crop_samples: Annotated[int, Field(ge=400)]
    """Length of the pieces that the front end learns from, at 16 kHz."""
    front_end_steps: Annotated[int, Field(ge=1)]
    """Steps in which the convolutions learn spectrum, phone and emotion."""
    front_end_rate: Annotated[float, Field(gt=0)]
    """Highest learning rate of the convolutions."""
    step_steps: Annotated[int, Field(ge=1)]
    """Steps in which the transformer learns the letter of every 20 ms."""
    ctc_steps: Annotated[int, Field(ge=1)]
    """CTC steps of HuBERT, and again of wav2vec2."""
    emotion_steps: Annotated[int, Field(ge=1)]
    """Steps of emotion2vec."""
    emotion_samples: Annotated[int, Field(ge=400)]
    """Length of the pieces that emotion2vec learns from, at 16 kHz."""
    rate: Annotated[float, Field(gt=0)]
    """Highest learning rate of the transformers; CTC and emotions use half of it."""


class SelectSettings(Section):
    """`select_images`: which AffectNet images become Emolib, and which feed FuNet."""

    per_level: Annotated[int, Field(ge=1)]
    """Images drawn per category and level (the paper: 500)."""
    levels: Literal["equal", "quantile", "balanced"]
    """Rule that cuts a category's arousal into three levels: `equal` thirds of its range (the paper), its `quantile`
    thirds, or `balanced` (the cuts of equal thirds moved as little as each level's number of images asks)."""
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64)]
    """Two images whose 256-bit perceptual hashes differ in at most so many bits count as one image."""
    pool: Annotated[int, Field(ge=0)]
    """Upper bound of non-neutral images, disjoint from Emolib, kept for FuNet (the paper: 81223)."""
    max_rejects: Annotated[float, Field(ge=0, le=1)]
    """The stage fails above this share of rejected records."""


class UnitCalibration(Section):
    """How one MediaPipe expression score becomes an ARKit weight: `gain * (score - offset)`, cut to 0..1."""

    offset: Annotated[float, Field(ge=-1, le=1)]
    gain: Annotated[float, Field(ge=0, le=10)]


class EmicaSettings(Section):
    """How EMICA's networks run."""

    device: Literal["auto", "cpu", "cuda"]
    """`auto` takes a GPU when there is one."""
    batch: Annotated[int, Field(ge=1)]
    """Faces per forward pass."""
    threads: Annotated[int, Field(ge=1)]
    """CPU threads of the networks; sums depend on it in their last bits."""
    crop: Literal["mediapipe", "corpus"]
    """Landmarks that place the crops: MediaPipe's, or the corpus's own 68."""
    whole_image: bool
    """Take the whole picture where no face is found, instead of rejecting it."""


class ReconstructSettings(Section):
    """`reconstruct_faces`: photograph -> coefficients. Sigmas say how far a quantity is expected to stray."""

    backend: Literal["landmarks", "emica"]
    """`landmarks`: our fitter on MediaPipe's landmarks. `emica`: the paper's networks, from the user's checkpoint."""
    emica: EmicaSettings
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


class ExportSettings(Section):
    """`export_emolib`: what a release holds beside the coefficients."""

    vertices: Literal["none", "float32", "int16"]
    """Meshes as a config of their own: lossless, or in steps of 10 micrometres."""
    images: bool
    """Pictures as a config of their own. AffectNet's licence forbids passing them on: for private copies only."""
    rows_per_file: Annotated[int, Field(ge=1)]


class RigSettings(Section):
    """`rig_mouths`: VOCASET with a mouth, and its jaw angle beside every face."""

    mouth: str
    """`procedural`, or the file that `ecavatar assets add mouth FILE` made; its name holds its content's hash."""
    fps: Annotated[int, Field(ge=1)]
    """Frames per second kept; it must divide VOCASET's 60 (the field trains at 30)."""
    patch_mm: Annotated[float, Field(ge=0, le=50)]
    """Radius around the chin and ear points whose vertices are averaged; 0 takes the vertex alone (the paper)."""
    max_rejects: Annotated[float, Field(ge=0, le=1)]
    """The stage fails above this share of missing or broken clips."""


class TrainingSettings(Section):
    """How one network is trained; part of the networks' own sections."""

    device: Literal["auto", "cpu", "cuda"]
    """`auto` takes a GPU when there is one."""
    precision: Literal["no", "bf16", "fp16"]
    """Automatic mixed precision around the network; `no` is float32."""
    threads: Annotated[int, Field(ge=1)]
    """CPU threads while training. Sums depend on it in their last bits, so it is fixed here, not by the machine."""
    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    """Clips or mesh pairs that one process takes at a time."""
    accumulate: Annotated[int, Field(ge=1)]
    """Batches per step of the optimiser; their gradients count as those of one large batch."""
    bucket: bool
    """Put items of like length into one batch, where items have lengths: less padding, another order."""
    patience: Annotated[int, Field(ge=1)] | None
    """Stop after so many validations without a better one; null: go on to the last epoch (the papers)."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Adam's, betas 0.9 and 0.999."""
    schedule: Literal["constant", "cosine"]
    """`cosine`: 5 % of the steps up, then down to a hundredth; `constant` is the papers'."""
    clip_norm: Annotated[float, Field(gt=0)] | None
    """Largest norm of the gradient; null: not clipped (the papers)."""
    validate_every: Annotated[int, Field(ge=1)]
    """Epochs between validations; weights are chosen among validated epochs, the last one is always validated."""
    checkpoint_every: Annotated[int, Field(ge=1)]
    """Epochs between checkpoints."""


class SelfTalkSettings(Section):
    """`train_selftalk`: SelfTalk's sizes and the weights of its losses."""

    feature_dim: Annotated[int, Field(ge=1)]
    """Width of the facial animator (512)."""
    heads: Annotated[int, Field(ge=1)]
    """Attention heads of the animator (4); its feed-forward part is twice `feature_dim` wide."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Of animator and interpreter (0.1)."""
    output_scale_m: Annotated[float, Field(gt=0)]
    """Metres per unit of the zero-initialised last layer (the original: 1). Small, it lets the output learn faster."""
    encoder: Literal["frozen", "convolutions_frozen"]
    """`convolutions_frozen` trains the speech encoder's transformer (the original). `frozen` trains none of it, and
    its features are then computed once per clip."""
    resample: Literal["before_projection", "after_encoder"]
    """Where features come from 50 Hz to the motion's rate: before the encoder's transformer (the original), or behind
    it (DiffSpeaker)."""
    mouth: Literal["rigged", "regressed"]
    """`rigged` predicts the jaw angle and turns the mouth by it, so teeth stay rigid (ours); `regressed` predicts all
    15,051 vertices (the paper)."""
    interpreter_layers: Annotated[int, Field(ge=1)]
    """Encoder layers, and as many decoder layers, of the lip-reading interpreter (6)."""
    interpreter_heads: Annotated[int, Field(ge=1)]
    """Its attention heads (8)."""
    interpreter_ffn: Annotated[int, Field(ge=1)]
    """Its feed-forward width (2048)."""
    reconstruction: Annotated[float, Field(ge=0)]
    """Weight of the mean squared vertex error, metres (1000)."""
    velocity: Annotated[float, Field(ge=0)]
    """Weight of the mean squared error of differences between frames, metres (1000)."""
    latent: Annotated[float, Field(ge=0)]
    """Weight of the distance between interpreter and recogniser features (0.001)."""
    text: Annotated[float, Field(ge=0)]
    """Weight of the CTC loss against the recogniser's transcript (0.0001)."""
    angle: Annotated[float, Field(ge=0)]
    """Weight of the mean squared error of the jaw angle, radians (ours: the paper regresses mouth vertices)."""
    training: TrainingSettings


class PairsSettings(Section):
    """`pair_faces`: which faces FuNet learns to fuse."""

    train: Annotated[int, Field(ge=1)]
    """Random pairs of a training frame and a pool face (the paper: 81223)."""
    validation: Annotated[int, Field(ge=1)]
    """Pairs of a validation subject's frame and a face kept from training."""
    validation_faces: Annotated[float, Field(gt=0, lt=1)]
    """Share of the pool kept for validation."""


class FuNetSettings(Section):
    """`train_funet`: the fusion network's widths (Table 2) and losses (equations 2 to 6)."""

    channels: Annotated[list[int], Field(min_length=3, max_length=3)]
    """Width of the first convolution, of the residual blocks, of the third convolution (256, 128, 64)."""
    hidden: Annotated[int, Field(ge=1)]
    """Width of the first fully connected layer (8192)."""
    normalise: bool
    """Inputs and outputs standardised with the training pairs' means and one spread each; false: metres (the paper)."""
    residual: Literal["none", "lip"]
    """`lip`: the network gives what M_face adds to M_lip; `none`: M_face itself (the paper)."""
    identity_sigma: Annotated[float, Field(ge=0)]
    """Standard deviation of the random shape coefficients by which each M_lip's identity is varied while training; 0:
    the corpus's own identities (the paper). VOCASET has eight to train on: too few to learn to keep an unseen one."""
    warm_start: Annotated[int, Field(ge=0)]
    """Pairs for which the linear layers are solved before the first step; 0: random weights (the paper)."""
    reduction: Literal["mean", "sum"]
    """Squared norms are averaged over a region's vertices, or summed. The paper does not say."""
    chin_lip: Annotated[float, Field(ge=0)]
    """w1 of equation 3 (0.35)."""
    chin_emotional: Annotated[float, Field(ge=0)]
    """w2 of equation 3 (0.65)."""
    terms: Annotated[list[Literal["lip", "chin", "expression", "identity"]], Field(min_length=1)]
    """Losses that are added up (all four)."""
    training: TrainingSettings


class EmotionSettings(Section):
    """`track_emotions`: the emotions heard along a clip."""

    window_seconds: Annotated[float, Field(gt=0)]
    """The paper's t (it gives no value): one emotion and level per window."""
    renormalise: bool
    """Make the probabilities of the seven emotions that are kept sum to 1 again; the paper does not say."""
    level_lowest: Annotated[float, Field(ge=0, lt=1)]
    """Probability at which level 1 begins; with `level_highest` the ends of the paper's linear map."""
    level_highest: Annotated[float, Field(gt=0, le=1)]
    """Probability at which level 3 ends; more than `level_lowest`."""


class PredictSettings(Section):
    """`predict`: how lips and emotion become one face."""

    transition_seconds: Annotated[float, Field(ge=0)]
    """The paper's t_trans: half the length of the blend between two emotion windows."""
    emotional_identity: Literal["own", "retrieved"]
    """`retrieved`: M_emo is the Emolib item's own mesh (the paper). `own`: its expression on M_in's shape."""
    empty_level: Literal["refuse", "nearest_level"]
    """When Emolib has no item of the wanted category and level: stop, or take the nearest level of the category."""
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

    corpora: CorporaSettings | None = None
    """None where the user's own corpora are read."""
    speech_models: SpeechModelsSettings | None = None
    """Only where the pipeline trains its own speech models; `full` uses published ones."""
    select: SelectSettings
    reconstruct: ReconstructSettings
    export: ExportSettings
    rig: RigSettings
    selftalk: SelfTalkSettings
    pairs: PairsSettings
    funet: FuNetSettings
    emotions: EmotionSettings
    predict: PredictSettings
    benchmark: BenchmarkSettings
    report: ReportSettings


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    profiles: list[Literal["sample", "full"]]
    studies: list[str]
    """Of `STUDIES`."""
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
        choices = () if field is None else (field.annotation, *get_args(field.annotation))  # a section may be optional
        sections = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
