"""EMICA's three networks, with the attribute names that the published checkpoints use as keys.

MICA sees an aligned 112 px face and gives the identity; the coarse encoder sees the 224 px crop and gives texture,
poses, camera and light; the expression encoder sees the same crop and gives the expression.

Source:
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (ResNet-50); Deng et al., ArcFace, CVPR 2019
    (the improved ResNet of 100 layers); Zielonka et al., Towards Metrical Reconstruction of Human Faces, ECCV 2022.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.errors import DataError, ShapeError

CROP_PX = 224
"""Side of the crop that coarse and expression encoder see."""
ARCFACE_PX = 112
"""Side of the aligned face that MICA sees."""
N_SHAPE, N_EXPRESSION, N_LIGHT = 300, 100, 27
SIZES = {"texcode": 50, "jawpose": 3, "globalpose": 3, "cam": 3, "lightcode": N_LIGHT, "expcode": N_EXPRESSION}
"""Numbers of each output, by its name in EMICA's configuration."""

Outputs = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Which encoder gives which outputs, in the order of its last layer."""

    name: str
    coarse: Outputs
    expression: Outputs
    """Empty where one encoder gives everything."""

    @property
    def widths(self) -> tuple[int, int]:
        """Outputs of the coarse and of the expression encoder."""
        return _width(self.coarse), _width(self.expression)


VARIANTS = (
    Variant(
        name="jaw-coarse", coarse=("texcode", "jawpose", "globalpose", "cam", "lightcode"), expression=("expcode",)
    ),
    Variant(
        name="jaw-expression", coarse=("texcode", "globalpose", "cam", "lightcode"), expression=("expcode", "jawpose")
    ),
    Variant(
        name="single", coarse=("expcode", "texcode", "jawpose", "globalpose", "cam", "lightcode"), expression=()
    ),
    Variant(name="no-jaw", coarse=("texcode", "globalpose", "cam", "lightcode"), expression=("expcode",)),
)  # fmt: skip
"""The published arrangements. Their head widths tell them apart: 86 and 100 (`EMICA-CVT_flame2020_notexture`), 83 and
103, 186 alone, and 83 and 100, which leaves no place for a jaw."""


def variant_of_widths(coarse: int, expression: int) -> Variant:
    """The variant whose encoders have so many outputs; `expression` is 0 where there is no expression encoder.

    Raises:
        DataError: no published variant has these widths.
    """
    for variant in VARIANTS:
        if variant.widths == (coarse, expression):
            return variant
    known = ", ".join(f"{v.widths[0]} and {v.widths[1]} ({v.name})" for v in VARIANTS)
    other = " 236 outputs are DECA's or EMOCA's, whose coefficients are others." if 236 in (coarse, expression) else ""
    raise DataError(
        f"no EMICA variant has encoders with {coarse} and {expression} outputs; known are {known}.{other} Give a "
        "checkpoint such as EMICA-CVT_flame2020_notexture."
    )


def _width(outputs: Outputs) -> int:
    return sum(SIZES[name] for name in outputs)


class Bottleneck(nn.Module):
    """ResNet-50's block: 1x1, 3x3 (with the stride), 1x1 to four times the width, and the input added."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Features."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        inner = functional.relu(self.bn2(self.conv2(inner)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.bn3(self.conv3(inner)) + shortcut)


class ResNet50(nn.Module):
    """ResNet-50 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = _bottlenecks(64, 64, 3, 1)
        self.layer2 = _bottlenecks(256, 128, 4, 2)
        self.layer3 = _bottlenecks(512, 256, 6, 2)
        self.layer4 = _bottlenecks(1024, 512, 3, 2)

    def forward(self, image: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B 2048"]:
        """Features of RGB images in 0..1 (no ImageNet mean and spread)."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return functional.avg_pool2d(x, 7).flatten(1)


class ImageEncoder(nn.Module):
    """ResNet-50 and a head of two linear layers."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.encoder = ResNet50()
        self.layers = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, outputs))

    def forward(self, image: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B outputs"]:
        """Unscaled outputs for RGB images in 0..1."""
        return self.layers(self.encoder(image))


class ArcFaceBlock(nn.Module):
    """Improved residual block: normalise, 3x3, normalise, PReLU, 3x3 (with the stride), normalise, input added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(outputs), nn.PReLU(outputs)
        self.conv2, self.bn3 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = _projection(inputs, outputs, stride) if stride > 1 else None

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Features."""
        inner = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(inner)) + (x if self.downsample is None else self.downsample(x))


class ArcFace(nn.Module):
    """The improved ResNet of 100 layers with an embedding of 512 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.prelu = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        self.layer1 = _arcface_blocks(64, 64, 3)
        self.layer2 = _arcface_blocks(64, 128, 13)
        self.layer3 = _arcface_blocks(128, 256, 30)
        self.layer4 = _arcface_blocks(256, 512, 3)
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, 512)
        self.features = nn.BatchNorm1d(512)

    def forward(self, face: Float[Tensor, "B 3 112 112"]) -> Float[Tensor, "B 512"]:
        """Embeddings, not normalised, of aligned RGB faces in -1..1."""
        x = self.prelu(self.bn1(self.conv1(face)))
        x = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return self.features(self.fc(x.flatten(1)))


class MappingNetwork(nn.Module):
    """From an ArcFace embedding of length 1 to FLAME's shape coefficients."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.ModuleList(nn.Linear(512 if k == 0 else N_SHAPE, N_SHAPE) for k in range(4))
        self.output = nn.Linear(N_SHAPE, N_SHAPE)

    def forward(self, embedding: Float[Tensor, "B 512"]) -> Float[Tensor, "B 300"]:
        """Shape coefficients; no scale is applied."""
        for layer in self.network:
            embedding = functional.leaky_relu(layer(embedding), 0.2)
        return self.output(embedding)


class Mica(nn.Module):
    """Identity of an aligned face."""

    def __init__(self) -> None:
        super().__init__()
        self.E_mica = nn.ModuleDict(
            {"arcface": ArcFace(), "flameModel": nn.ModuleDict({"regressor": MappingNetwork()})}
        )

    def forward(self, face: Float[Tensor, "B 3 112 112"]) -> Float[Tensor, "B 300"]:
        """FLAME shape coefficients of aligned RGB faces in -1..1."""
        embedding = functional.normalize(self.E_mica["arcface"](face))
        return self.E_mica["flameModel"]["regressor"](embedding)


class CoarseEncoder(nn.Module):
    """An image encoder under the name `encoder`, as the checkpoints nest it."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.encoder = ImageEncoder(outputs)

    def forward(self, image: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B outputs"]:
        """Unscaled outputs for RGB images in 0..1."""
        return self.encoder(image)


class EmicaNetworks(nn.Module):
    """All networks of one variant; its state dict has the keys of the repackaged checkpoint.

    Fresh weights are random; `emica.checkpoint.load_networks` fills them.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        coarse, expression = variant.widths
        self.variant = variant
        self.mica_encoder = Mica()
        self.deca_encoder = CoarseEncoder(coarse)
        self.expression_encoder = CoarseEncoder(expression) if expression else None

    def forward(
        self, crops: Float[Tensor, "B 3 224 224"], faces: Float[Tensor, "B 3 112 112"]
    ) -> dict[str, Float[Tensor, "B _"]]:
        """`shapecode` (300) and the variant's outputs by name.

        Args:
            crops: RGB in 0..1.
            faces: the same persons' aligned faces, RGB in -1..1.

        Raises:
            ShapeError: not such batches, or of different sizes.
        """
        if crops.shape[1:] != (3, CROP_PX, CROP_PX) or faces.shape != (len(crops), 3, ARCFACE_PX, ARCFACE_PX):
            raise ShapeError(
                f"expected (B, 3, {CROP_PX}, {CROP_PX}) crops and (B, 3, {ARCFACE_PX}, {ARCFACE_PX}) faces, got "
                f"{tuple(crops.shape)} and {tuple(faces.shape)}."
            )
        outputs = {"shapecode": self.mica_encoder(faces)} | _split(self.deca_encoder(crops), self.variant.coarse)
        if self.expression_encoder is None:
            return outputs
        return outputs | _split(self.expression_encoder(crops), self.variant.expression)


def meta_networks(variant: Variant) -> EmicaNetworks:
    """Networks without memory, to be given tensors by `load_state_dict(..., assign=True)`."""
    with torch.device("meta"):
        return EmicaNetworks(variant)


def _split(values: Tensor, names: Outputs) -> dict[str, Tensor]:
    return dict(zip(names, values.split([SIZES[name] for name in names], dim=1), strict=True))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _bottlenecks(inputs: int, width: int, count: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(4 * width, width, 1) for _ in range(count - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


def _arcface_blocks(inputs: int, outputs: int, count: int) -> nn.Sequential:
    rest = (ArcFaceBlock(outputs, outputs, 1) for _ in range(count - 1))
    return nn.Sequential(ArcFaceBlock(inputs, outputs, 2), *rest)
