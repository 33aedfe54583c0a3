"""bfloat16 for prediction: half the memory, and more than twice the speed where the processor multiplies in it."""

import torch
from torch import nn
from torch.nn.utils import parametrize


def multiplies_bfloat16(device: torch.device) -> bool:
    """True if `device` has bfloat16 matrix instructions; without them bfloat16 works, but slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))  # the last one: ARM
    return False


def store_in_bfloat16(module: nn.Module) -> None:
    """Keeps the weights of linear layers and convolutions in bfloat16; norms stay in float32.

    To be run under `torch.autocast(..., dtype=torch.bfloat16)`, for prediction only: it rounds the weights to 8 bits of
    mantissa and folds weight norms into them, so the module no longer loads or saves float32 checkpoints.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            if parametrize.is_parametrized(part, "weight"):
                parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
            part.to(torch.bfloat16)
