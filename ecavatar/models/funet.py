"""FuNet: one face from two, lips of M_lip and expression of M_emo; its losses, and their minimiser in closed form.

The network is Table 2 of the paper: convolutions over the 1 x V x 6 picture that the two meshes make side by side (rows
are vertices, columns x, y, z of M_lip and of M_emo), then two linear layers. Its losses compare each region of the
result with one of the two meshes, or with a mixture on the chin; being sums of squares per vertex they have a minimiser
per vertex, `blend`, the target that FuNet approaches.

Source:
    The ECAvatar paper, section 4.3: Figure 4, Table 2, equations 2 to 6.
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ecavatar.errors import DataError, ShapeError
from ecavatar.face.regions import FusionRegions

TERMS = ("lip", "chin", "expression", "identity")
"""The losses of equations 2 to 5, in that order."""
_SLOPE = 0.2
"""Of LeakyReLU; the paper does not say, the usual value for such networks."""
Residual = Literal["none", "lip"]
Reduction = Literal["mean", "sum"]


class ResidualBlock(nn.Module):
    """Convolution, LeakyReLU, convolution, added to the input, LeakyReLU; no normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C V 6"]) -> Float[Tensor, "B C V 6"]:
        """Same shape as the input."""
        inner = self.second(functional.leaky_relu(self.first(x), _SLOPE))
        return functional.leaky_relu(x + inner, _SLOPE)


class FuNet(nn.Module):
    """The fusion network.

    Inside, meshes are standardised: `(vertices - mean) / scale`, with a mean face for each input and the output, one
    scale for the inputs and one for the output, kept as buffers with the weights. They start at 0 and 1 (metres, the
    paper) and are set by `set_normalisation`; the result always comes back in metres.
    """

    lip_mean: Tensor
    emotional_mean: Tensor
    output_mean: Tensor
    input_scale: Tensor
    output_scale: Tensor

    def __init__(self, *, n_vertices: int, channels: Sequence[int], hidden: int, residual: Residual = "none") -> None:
        """Builds the network with random weights.

        Args:
            n_vertices: V of the topology.
            channels: widths of the first convolution, of the residual blocks and of the third convolution.
            hidden: width of the first linear layer.
            residual: `lip` adds the (standardised) result to M_lip; `none` is the paper's.

        Raises:
            DataError: not three widths, or an unknown `residual`.
        """
        super().__init__()
        if len(channels) != 3 or residual not in ("none", "lip"):
            raise DataError(f"FuNet needs three channel widths and residual none or lip, got {channels}, {residual!r}.")
        self._arguments = {
            "n_vertices": n_vertices, "channels": list(channels), "hidden": hidden, "residual": residual,
        }  # fmt: skip
        self.n_vertices, self.residual = n_vertices, residual
        first, middle, last = channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, first, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(first, middle, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            *(ResidualBlock(middle) for _ in range(3)),
            nn.Conv2d(middle, last, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(last, 1, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
        )
        self.convolutions.to(memory_format=torch.channels_last)  # the faster layout, on CPUs too; same function
        self.gather = nn.Linear(n_vertices * 6, hidden)
        self.spread = nn.Linear(hidden, n_vertices * 3)
        for name in ("lip_mean", "emotional_mean", "output_mean"):
            self.register_buffer(name, torch.zeros(n_vertices, 3))
        for name in ("input_scale", "output_scale"):
            self.register_buffer(name, torch.ones(()))

    def arguments(self) -> dict[str, Any]:
        """Constructor arguments, as json values."""
        return dict(self._arguments)

    def set_normalisation(
        self,
        lip: Float[Tensor, "N V 3"],
        emotional: Float[Tensor, "N V 3"],
        fused: Float[Tensor, "N V 3"],
    ) -> None:
        """Standardise by these meshes: mean face of each kind, one root-mean-square spread for inputs, one for outputs.

        Args:
            lip: examples of M_lip, metres.
            emotional: examples of M_emo.
            fused: what the network should give for them (`blend`).

        Raises:
            DataError: the meshes do not vary.
        """
        means = [meshes.mean(dim=0) for meshes in (lip, emotional, fused)]
        spread = torch.cat([lip - means[0], emotional - means[1]]).square().mean().sqrt()
        base = lip - means[0] if self.residual == "lip" else torch.zeros_like(fused)
        wanted = (fused - means[2] - base).square().mean().sqrt()
        if min(spread.item(), wanted.item()) <= 0:
            raise DataError("FuNet's example meshes do not vary; give several different pairs.")
        for buffer, value in zip(
            (self.lip_mean, self.emotional_mean, self.output_mean, self.input_scale, self.output_scale),
            (*means, spread, wanted),
            strict=True,
        ):
            buffer.copy_(value)

    def forward(self, lip: Float[Tensor, "B V 3"], emotional: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """M_face for each pair, metres.

        Raises:
            ShapeError: shapes differ, or V is not the network's.
        """
        if lip.shape != emotional.shape or lip.ndim != 3 or lip.shape[1:] != (self.n_vertices, 3):
            raise ShapeError(
                f"expected two (B, {self.n_vertices}, 3) batches, got {tuple(lip.shape)} and {tuple(emotional.shape)}."
            )
        flat = self.spread(self.gather(self.convolutions(self.picture(lip, emotional)).flatten(1)))
        fused = flat.unflatten(1, (self.n_vertices, 3)) * self.output_scale + self.output_mean
        return fused + (lip - self.lip_mean) if self.residual == "lip" else fused

    def picture(self, lip: Float[Tensor, "B V 3"], emotional: Float[Tensor, "B V 3"]) -> Float[Tensor, "B 1 V 6"]:
        """The two meshes as the convolutions see them: standardised, side by side."""
        standard_lip = (lip - self.lip_mean) / self.input_scale
        standard_emotional = (emotional - self.emotional_mean) / self.input_scale
        return torch.cat([standard_lip, standard_emotional], dim=2)[:, None]

    def standard_target(self, lip: Float[Tensor, "B V 3"], fused: Float[Tensor, "B V 3"]) -> Float[Tensor, "B V 3"]:
        """What the last layer has to give so that the network's result is `fused`: the inverse of the normalisation."""
        base = lip - self.lip_mean if self.residual == "lip" else torch.zeros_like(lip)
        return (fused - self.output_mean - base) / self.output_scale


class FusionLoss(nn.Module):
    """Equation 6 and its parts."""

    lips: Tensor
    chin: Tensor
    face: Tensor
    outside: Tensor

    def __init__(
        self,
        regions: FusionRegions,
        *,
        chin_lip: float = 0.35,
        chin_emotional: float = 0.65,
        terms: Collection[str] = TERMS,
        reduction: Reduction = "mean",
    ) -> None:
        """Sets what is compared where.

        Args:
            regions: the partition L, C, F, O.
            chin_lip: w1, weight of M_lip on the chin.
            chin_emotional: w2, weight of M_emo on the chin.
            terms: names from `TERMS` that enter the total; the others are computed for the log only.
            reduction: a region's squared distances are averaged over its vertices, or summed; batches are averaged.

        Raises:
            DataError: an unknown or no term, or an empty region.
        """
        super().__init__()
        if not terms or set(terms) - set(TERMS):
            raise DataError(f"loss terms must be some of {', '.join(TERMS)}, got {sorted(terms)}.")
        for name in ("lips", "chin", "face", "outside"):
            indices = torch.from_numpy(getattr(regions, name).copy()).long()
            if not len(indices):
                raise DataError(f"region {name} has no vertices; FuNet's losses need all four.")
            self.register_buffer(name, indices, persistent=False)
        self.chin_lip, self.chin_emotional = chin_lip, chin_emotional
        self.terms, self.reduction = tuple(term for term in TERMS if term in terms), reduction

    def forward(
        self, fused: Float[Tensor, "B V 3"], lip: Float[Tensor, "B V 3"], emotional: Float[Tensor, "B V 3"]
    ) -> dict[str, Float[Tensor, ""]]:
        """`lip`, `chin`, `expression`, `identity` (m^2) and `loss`, the sum of those that are switched on."""
        to_lip = (fused - lip).square().sum(dim=2)
        to_emotional = (fused - emotional).square().sum(dim=2)
        parts = {
            "lip": self._reduced(to_lip, self.lips),
            "chin": self.chin_lip * self._reduced(to_lip, self.chin)
            + self.chin_emotional * self._reduced(to_emotional, self.chin),
            "expression": self._reduced(to_emotional, self.face),
            "identity": self._reduced(to_lip, self.outside),
        }
        return parts | {"loss": torch.stack([parts[term] for term in self.terms]).sum()}

    def _reduced(self, squared: Tensor, region: Tensor) -> Tensor:
        chosen = squared[:, region]
        return chosen.mean() if self.reduction == "mean" else chosen.sum(dim=1).mean()


def blend(
    lip: Float[Tensor, "*B V 3"],
    emotional: Float[Tensor, "*B V 3"],
    regions: FusionRegions,
    *,
    chin_lip: float = 0.35,
    chin_emotional: float = 0.65,
) -> Float[Tensor, "*B V 3"]:
    """The minimiser of equation 6: lips and outside of M_lip, face of M_emo, on the chin their weighted mean.

    Args:
        lip: M_lip, metres.
        emotional: M_emo, same shape.
        regions: the partition L, C, F, O.
        chin_lip: w1.
        chin_emotional: w2.

    Raises:
        ShapeError: shapes differ.
        DataError: w1 + w2 is not positive.
    """
    if lip.shape != emotional.shape:
        raise ShapeError(f"M_lip and M_emo must have one shape, got {tuple(lip.shape)} and {tuple(emotional.shape)}.")
    if chin_lip + chin_emotional <= 0:
        raise DataError(f"the chin's weights must have a positive sum, got {chin_lip} and {chin_emotional}.")
    share = lip.new_zeros(lip.shape[-2])
    share[torch.from_numpy(regions.face.copy()).long()] = 1.0
    share[torch.from_numpy(regions.chin.copy()).long()] = chin_emotional / (chin_lip + chin_emotional)
    return torch.lerp(lip, emotional, share[:, None])
