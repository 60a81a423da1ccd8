"""One small network of each family."""

import torch

from rheobase.models import create_model

SMALL = {
    "spikformer": (
        "spikformer_cifar10_2_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3, "scale": 0.5},
    ),
    "spikformer_events": (
        "spikformer_cifar10dvs_2_256",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 32, "T": 3},
    ),
    "spikformer_ann": (
        "spikformer_ann_cifar10_2_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8},
    ),
    "sew_resnet": (
        "sew_resnet18",
        {"num_classes": 10, "image_size": 16, "T": 3, "zero_init_residual": False},
    ),
    "spiking_resnet": ("spiking_resnet18", {"num_classes": 10, "image_size": 16, "T": 3}),
}


def small(family, **options):
    """A small network whose neurons fire, with running statistics of its own."""
    torch.manual_seed(0)
    name, overrides = SMALL[family]
    net = create_model(name, **(overrides | options))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1.0, 3.0)
            torch.nn.init.uniform_(module.bias, 0.5, 2.0)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.2, 0.6)
    return net
