"""FuNet's weights before the first step, found in closed form: what makes the small network good within a minute.

The target of fusion, `blend`, is linear in the two meshes, and FuNet ends in two linear layers. So the convolutions are
started where they act linearly (centre taps that pass their input on, biases that keep every unit on the straight side
of LeakyReLU), and the two linear layers are solved for: ridge regression from the convolutions' output to the
standardised target, cut to the rank that the hidden layer has. Training then goes on from there, every weight free.

The paper starts from random weights; `funet.warm_start: 0` does the same.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ecavatar.errors import DataError
from ecavatar.models.funet import FuNet, ResidualBlock

_MARGIN = 4.0  # standard deviations between a unit's mean and the kink of LeakyReLU
_NOISE = 0.1  # spread of the outer taps against the centre's
_RIDGE = 1e-5  # of the mean squared norm of an example's features
_CHUNK = 16  # examples convolved at a time
_PROBE = 32  # examples that set the biases


@torch.no_grad()
def warm_start(
    network: FuNet,
    lip: Float[Tensor, "N V 3"],
    emotional: Float[Tensor, "N V 3"],
    fused: Float[Tensor, "N V 3"],
) -> None:
    """Set all weights of a network so that it fuses these examples nearly as given.

    Args:
        network: its normalisation already set; weights are overwritten, random parts drawn from torch's generator.
        lip: examples of M_lip, metres.
        emotional: examples of M_emo.
        fused: what the network should give for them.

    Raises:
        DataError: fewer than two examples.
    """
    if len(lip) < 2:
        raise DataError(
            f"a warm start needs at least two examples, got {len(lip)}. Raise funet.warm_start or set it to 0."
        )
    start_linear(network, network.picture(lip[:_PROBE], emotional[:_PROBE]))
    features = torch.cat(
        [
            network.convolutions(network.picture(lips, emotionals)).flatten(1)
            for lips, emotionals in zip(lip.split(_CHUNK), emotional.split(_CHUNK), strict=True)
        ]
    )
    solve_linear_layers(network, features, network.standard_target(lip, fused).flatten(1))


@torch.no_grad()
def start_linear(network: FuNet, probe: Float[Tensor, "N 1 V 6"]) -> None:
    """Set the convolutions so that they pass `probe` on linearly.

    A residual block starts as the identity (its second convolution is zero); every other convolution mixes channels at
    the centre tap, channel 0 carrying channel 0 on unmixed.
    """
    x = probe
    for layer in network.convolutions:
        if isinstance(layer, ResidualBlock):
            nn.init.zeros_(layer.second.weight)
            nn.init.zeros_(layer.second.bias)
        elif isinstance(layer, nn.Conv2d):
            _mix_centre(layer)
            y = layer(x)
            layer.bias += _MARGIN * y.std(dim=(0, 2, 3)) - y.mean(dim=(0, 2, 3))
        x = layer(x)


@torch.no_grad()
def solve_linear_layers(
    network: FuNet, features: Float[Tensor, "N inputs"], target: Float[Tensor, "N outputs"]
) -> None:
    """Set `gather` and `spread` to the ridge regression of `target` on `features`, cut to the hidden layer's rank.

    Computed through the N x N Gram matrix. Hidden unit k carries the k-th principal component of the regression's
    outputs, at unit variance.
    """
    feature_mean, target_mean = features.mean(dim=0), target.mean(dim=0)
    centred = features - feature_mean
    gram = (centred @ centred.T).double()
    gram_ridged = gram + _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    dual = torch.linalg.solve(gram_ridged, (target - target_mean).double())
    fitted = gram @ dual
    variances, directions = torch.linalg.eigh(fitted @ fitted.T)
    rank = min(network.gather.out_features, len(features) - 1)
    spreads = variances[-rank:].clamp(min=variances[-1] * 1e-12).sqrt()
    components = (fitted.T @ directions[:, -rank:]) / spreads
    units = spreads / len(features) ** 0.5
    network.gather.weight.zero_()
    network.spread.weight.zero_()
    network.gather.bias.zero_()
    reading = centred.T @ (dual @ (components / units)).float()
    network.gather.weight[:rank] = reading.T
    network.gather.bias[:rank] = -(feature_mean @ reading)
    network.spread.weight[:, :rank] = (components * units).float()
    network.spread.bias.copy_(target_mean)


def _mix_centre(layer: nn.Conv2d) -> None:
    outputs, inputs = layer.weight.shape[:2]
    nn.init.normal_(layer.weight, std=_NOISE / (9 * inputs) ** 0.5)
    layer.weight[:, :, 1, 1] += torch.randn(outputs, inputs) / inputs**0.5
    layer.weight[0] = 0
    layer.weight[0, 0, 1, 1] = 1
    nn.init.zeros_(layer.bias)
