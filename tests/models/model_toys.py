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
    "spiking_vgg": (
        "spiking_vgg9_cifar10",
        {"features": "8 8 A 16", "hidden": (32,), "image_size": 8, "T": 3, "bias": True},
    ),
    "vggsnn": ("vggsnn", {"features": "8 16 A 16/2", "image_size": 8, "T": 3}),
    "tdbn_resnet": (
        "tdbn_resnet19_cifar10",
        {"depths": (1, 1), "widths": (8, 16), "hidden": 32, "image_size": 8, "T": 3},
    ),
    "tdbn_resnet50": (
        "tdbn_resnet50",
        {"depths": (1, 1), "widths": (8, 16), "num_classes": 10, "image_size": 16, "T": 3},
    ),
    "tet_resnet": (
        "tet_resnet19_cifar10",
        {"depths": (1, 1), "widths": (8, 16), "hidden": 32, "image_size": 8, "T": 3},
    ),
    "ms_resnet": (
        "ms_resnet18",
        {"depths": (1, 2), "width": 8, "num_classes": 10, "image_size": 32, "T": 3},
    ),
    "ms_resnet_deep": (
        "ms_resnet104",
        {"depths": (1, 2), "width": 8, "num_classes": 10, "image_size": 32, "T": 3},
    ),
    "att_ms_resnet": (
        "att_ms_resnet18",
        {"depths": (1, 2), "width": 8, "num_classes": 10, "image_size": 32},
    ),
    "plif_net": ("plif_net_mnist", {"width": 8, "hidden": 32, "image_size": 8, "T": 3}),
    "seven_b_net": (
        "wide_7b_net_cifar10dvs",
        {"widths": (8, 16), "image_size": 8, "T": 3},
    ),
    "spiking_densenet": (
        "spiking_densenet102",
        {"depths": (2, 2), "growth": 8, "width": 16, "hidden": 32, "image_size": 8, "T": 3},
    ),
    "snasnet": (
        "snasnet_backward_cifar10",
        {"width": 8, "hidden": 32, "image_size": 8, "pool": 2, "T": 3},
    ),
    "snasnet_forward": (
        "snasnet_backward_cifar10",
        {"cell": "0314 0023 0003 0000", "width": 8, "hidden": 32, "image_size": 8, "pool": 2},
    ),
    "autosnn": (
        "autosnn_16",
        {"blocks": "SRB_k3 skip skip SCB_k5 SRB_k5", "width": 8, "image_size": 8, "T": 3},
    ),
    "searched_net": ("searched_net_cifar10", {"features": "8k3 M 16k5", "image_size": 8, "T": 3}),
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
        elif isinstance(module, torch.nn.Linear):
            # Neurons behind linear layers have no norm to help them.
            torch.nn.init.xavier_normal_(module.weight, gain=2.5)
    return net
