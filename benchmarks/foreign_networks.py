"""Networks of Hugging Face's transformers, converted as they are: how far from their own outputs?

``python -m benchmarks.foreign_networks`` (``benchmarks/foreign.txt`` says what to install) prints
the table of ``docs/conversion.md``. Networks are small and untrained, in float64: what is asked is
whether their code is followed. "fine" sends every value in steps of a millionth, so that only what
these leave may differ; "ecmt" is the recipe as it is, with 32 steps.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rheobase.convert import ConvertedNetwork, NeuronRule, convert

__all__ = ["NETWORKS", "main"]

STEPS = 32
_BLOCKS = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_IMAGE = {**_BLOCKS, "image_size": 32, "patch_size": 8, "num_labels": 10}
_TEXT = {**_BLOCKS, "vocab_size": 100, "num_labels": 3}
_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_labels": 10}
_FOUR = {"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1], "num_labels": 10}
_WINDOWS = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 2],
}

# Class -> what its config is made with.
NETWORKS: dict[str, dict[str, Any]] = {
    "ResNetForImageClassification": {**_STAGES, "embedding_size": 16},
    "RegNetForImageClassification": {**_STAGES, "embedding_size": 8, "groups_width": 8},
    "ConvNextForImageClassification": {**_STAGES, "num_stages": 2},
    "ConvNextV2ForImageClassification": {**_STAGES, "num_stages": 2},
    "PoolFormerForImageClassification": {
        **_STAGES,
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "padding": [2, 1],
        "num_encoder_blocks": 2,
    },
    "FocalNetForImageClassification": {
        **_STAGES,
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 16,
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "ViTForImageClassification": _IMAGE,
    "DeiTForImageClassification": _IMAGE,
    "BeitForImageClassification": _IMAGE,
    "Data2VecVisionForImageClassification": _IMAGE,
    "Dinov2ForImageClassification": _IMAGE,
    "SwinForImageClassification": {**_WINDOWS, "window_size": 4, "num_labels": 10},
    "Swinv2ForImageClassification": {**_WINDOWS, "window_size": 4, "num_labels": 10},
    "PvtForImageClassification": {**_FOUR, "image_size": 64, "num_attention_heads": [1] * 4},
    "SegformerForImageClassification": _FOUR,
    "SegformerForSemanticSegmentation": {**_FOUR, "decoder_hidden_size": 32},
    "CLIPVisionModel": {**_BLOCKS, "image_size": 32, "patch_size": 8},
    "BertForSequenceClassification": _TEXT,
    "RobertaForSequenceClassification": _TEXT,
    "AlbertForSequenceClassification": {**_TEXT, "embedding_size": 32},
    "ElectraForSequenceClassification": {**_TEXT, "embedding_size": 32},
    "DistilBertForSequenceClassification": {
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 128,
        "vocab_size": 100,
        "num_labels": 3,
    },
    "GPT2ForSequenceClassification": {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "num_labels": 3,
    },
}


class OneOutput(nn.Module):
    """A network whose output holds several tensors, as one that gives that of interest."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, or what a network without classes pools."""
        out = self.net(x)
        found: Tensor = out.logits if hasattr(out, "logits") else out.pooler_output
        return found


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A network with drawn weights, and eight inputs for it."""
    import transformers

    network = getattr(transformers, name)
    torch.manual_seed(0)
    net = network(network.config_class(**NETWORKS[name])).double().eval()
    if name.endswith("SequenceClassification"):
        return OneOutput(net), torch.randint(2, 100, (8, 12))
    side = NETWORKS[name].get("image_size", 64)
    return OneOutput(net), torch.randn(8, 3, side, side, dtype=torch.float64)


def main(names: Sequence[str] = ()) -> None:
    """Print a row for each network, or for those named."""
    warnings.simplefilter("ignore")
    print(f"| network | parameters | fine | ecmt, T = {STEPS} |\n|---|---|---|---|")
    fine = NeuronRule("integer_code", levels=10**6)
    for name in names or NETWORKS:
        ann, x = built(name)
        errors = (
            _error(ann, x, convert(ann, x, recipe="integer_code", neuron=fine, T=2)),
            _error(ann, x, convert(ann, x, recipe="ecmt", T=STEPS)),
        )
        size = sum(p.numel() for p in ann.parameters())
        print(f"| {name} | {size / 1e3:,.0f} k | {errors[0]:.0e} | {errors[1]:.3f} |", flush=True)


@torch.no_grad()
def _error(ann: nn.Module, x: Tensor, snn: ConvertedNetwork) -> float:
    """The outputs' distance over their size."""
    expected = ann(x)
    return float((snn.mean_output(x) - expected).norm() / expected.norm())


if __name__ == "__main__":
    main(sys.argv[1:])
