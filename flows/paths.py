"""Where every file of one profile lies; the only place that spells a path of data/ or reports/."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProfilePaths:
    """Paths of one profile, relative to the repository root (the directory DVC runs stages in)."""

    profile: str

    @property
    def data(self) -> Path:
        return Path("data") / self.profile

    @property
    def reports(self) -> Path:
        return Path("reports") / self.profile

    # raw corpora, exactly as they ship
    @property
    def affectnet(self) -> Path:
        return self.data / "raw" / "affectnet"

    @property
    def vocaset(self) -> Path:
        return self.data / "raw" / "vocaset"

    @property
    def ravdess(self) -> Path:
        return self.data / "raw" / "ravdess"

    @property
    def mead(self) -> Path:
        return self.data / "raw" / "mead"

    @property
    def truth(self) -> Path:
        """True values of the sample world; read by `benchmark` alone."""
        return self.data / "truth"

    # assets
    @property
    def face_assets(self) -> Path:
        """What reconstruction reads: the face model, and EMICA's weights where the user has added them."""
        return self.data / "assets" / "face"

    @property
    def face_model(self) -> Path:
        return self.face_assets / "face_model.npz"

    @property
    def emica(self) -> Path:
        """EMICA's checkpoint as `ecavatar assets add emica` converted it."""
        return self.face_assets / "emica.safetensors"

    @property
    def hubert(self) -> Path:
        return self.data / "assets" / "hubert"

    @property
    def wav2vec2(self) -> Path:
        return self.data / "assets" / "wav2vec2"

    @property
    def emotion2vec(self) -> Path:
        return self.data / "assets" / "emotion2vec"

    @property
    def speech_figures(self) -> Path:
        """Held-out figures of the stand-in speech models (json)."""
        return self.data / "assets" / "speech_figures.json"

    # derived
    @property
    def selection(self) -> Path:
        """index.parquet (Emolib's images), pool.parquet (FuNet's), reserve.parquet, rejects.parquet, levels.json."""
        return self.data / "selection"

    @property
    def faces(self) -> Path:
        """emolib/part-*.parquet, pool/part-*.parquet, portraits.parquet, rejects.parquet."""
        return self.data / "faces"

    @property
    def emolib(self) -> Path:
        return self.data / "emolib"

    @property
    def vocateeth(self) -> Path:
        return self.data / "vocateeth"

    @property
    def pairs(self) -> Path:
        return self.data / "pairs"

    @property
    def selftalk(self) -> Path:
        return self.data / "models" / "selftalk"

    @property
    def funet(self) -> Path:
        return self.data / "models" / "funet"

    @property
    def checkpoints(self) -> Path:
        """Resumable training state; kept between attempts, never released."""
        return self.data / "checkpoints"

    def emotions(self, corpus: str) -> Path:
        return self.data / "emotions" / f"{corpus}.parquet"

    def predictions(self, method: str) -> Path:
        """One <corpus>.parquet per corpus."""
        return self.data / "predictions" / method

    def training_curve(self, network: str) -> Path:
        return self.reports / "training" / f"{network}.csv"

    def study(self, name: str) -> Path:
        return self.reports / "studies" / name

    @property
    def metrics(self) -> Path:
        return self.reports / "metrics.json"

    @property
    def per_clip(self) -> Path:
        return self.reports / "per_clip.csv"

    @property
    def dataset(self) -> Path:
        return self.reports / "dataset.json"

    @property
    def figures(self) -> Path:
        return self.reports / "figures"

    @property
    def report(self) -> Path:
        return self.reports / "report.html"
