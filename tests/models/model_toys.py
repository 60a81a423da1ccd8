"""One small network of each family."""

import torch

from rheobase.layers import BGN
from rheobase.models import create_model

META_SPIKEFORMER = {
    "widths": (4, 8, 8, 8),
    "heads": 2,
    "image_size": 32,
    "num_classes": 10,
    "T": 2,
    "distilled": True,
}
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
    "ann_resnet": ("ann_resnet20_qcfs_cifar10", {"blocks": 1, "levels": 64}),
    "ann_vgg": ("ann_vgg8_qcfs_cifar10", {"widths": (4, 4, 4), "hidden": 8, "levels": 64}),
    "mst": (
        "mst_tiny_cifar10",
        {"dim": 8, "depths": (2, 1), "heads": (2, 2), "window": 2, "image_size": 8, "levels": 64},
    ),
    "rate_coded_vit": (
        "rate_coded_vit_mnist",
        {"image_size": 8, "dim": 16, "depth": 2, "heads": 2, "hidden": 32},
    ),
    "sew_resnet": (
        "sew_resnet18",
        {"num_classes": 10, "image_size": 16, "T": 3, "zero_init_residual": False},
    ),
    "spike_driven_transformer": (
        "spike_driven_transformer_cifar10_2_256",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3},
    ),
    "spike_driven_transformer_events": (
        "spike_driven_transformer_dvs128_2_256",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 32, "num_classes": 10, "T": 3},
    ),
    "cml_spikformer": (
        "cml_spikformer_cifar10_2_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3, "scale": 0.5},
    ),
    "spike_driven_transformer_v2": ("spike_driven_transformer_v2_8_384", META_SPIKEFORMER),
    **{
        f"spike_driven_transformer_v2_{attention}": (
            "spike_driven_transformer_v2_8_384",
            META_SPIKEFORMER | {"attention": attention},
        )
        for attention in ("SDSA-2", "SDSA-4")
    },
    "spike_driven_transformer_v3": (
        "spike_driven_transformer_v3_t",
        {"widths": (4, 8, 8, 8), "heads": 2, "image_size": 32, "num_classes": 10},
    ),
    "spike_driven_transformer_v3_large": (
        "spike_driven_transformer_v3_12_512",
        {"widths": (4, 8, 8), "heads": 2, "depth": 1, "image_size": 32, "num_classes": 10},
    ),
    "spikingformer": (
        "spikingformer_cifar10_2_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3},
    ),
    "spikingformer_cml": (
        "spikingformer_cml_dvs128_2_256",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 32, "num_classes": 10, "T": 3},
    ),
    "qkformer": (
        "qkformer_cifar10_4_384",
        {"depth": 3, "dim": 32, "heads": 2, "image_size": 8, "T": 3},
    ),
    "qkformer_events": (
        "qkformer_cifar10dvs",
        {"dim": 32, "heads": 8, "image_size": 32, "T": 3},
    ),
    "sglformer": (
        "sglformer_8_384",
        {"dim": 32, "heads": 2, "global_blocks": 1, "image_size": 32, "num_classes": 10, "T": 3},
    ),
    "sglformer_cifar": (
        "sglformer_cifar10_4_384",
        {"dim": 48, "heads": 2, "global_blocks": 1, "image_size": 16, "T": 3},
    ),
    "tim": ("tim_cifar10dvs", {"depth": 1, "dim": 32, "heads": 8, "image_size": 32, "T": 3}),
    "max_former": (
        "max_former_10_384",
        {"dim": 32, "heads": 2, "depth": 1, "image_size": 32, "num_classes": 10, "T": 3},
    ),
    "max_former_cifar": (
        "max_former_cifar10_4_384",
        {"dim": 32, "heads": 2, "depth": 1, "image_size": 8, "T": 3},
    ),
    "max_former_events": (
        "max_former_cifar10dvs_2_256",
        {"dim": 32, "heads": 2, "image_size": 32, "T": 3, "compat": "official"},
    ),
    "spiking_resformer": (
        "spiking_resformer_cifar10",
        {
            "widths": (8, 16, 24),
            "depths": (1, 1, 1),
            "heads": (1, 2, 2),
            "image_size": 8,
            "group_size": 8,
            "T": 3,
        },
    ),
    "spiking_resnet": ("spiking_resnet18", {"num_classes": 10, "image_size": 16, "T": 3}),
    # Less-known spiking transformers.
    "swformer": (
        "swformer_cifar10_4_384",
        {"depth": 1, "dim": 32, "groups": 4, "image_size": 8, "T": 3, "head_neuron": True},
    ),
    "swformer_events": (
        "swformer_cifar10dvs_2_256",
        {"depth": 1, "dim": 32, "image_size": 32, "T": 3},
    ),
    "ost": ("ost_cifar10_4_384", {"depth": 1, "dim": 32, "image_size": 8, "T": 3}),
    "ost_events": (
        "ost_dvs128_1_256",
        {"depth": 1, "dim": 32, "image_size": 32, "num_classes": 10, "T": 3},
    ),
    "revs_resnet": (
        "revs_resnet21_cifar10",
        {"depths": (1, 1), "widths": (8, 12), "image_size": 8, "T": 3},
    ),
    "revs_resnet_events": (
        "revs_resnet24_cifar10dvs",
        {"depths": (1, 1), "widths": (8, 12), "image_size": 32, "T": 3},
    ),
    "spikeformer_ct": (
        "spikeformer_ct_cifar10dvs_7_3x2x3",
        {"depth": 2, "dim": 16, "heads": 2, "stages": 2, "image_size": 16, "T": 3},
    ),
    "autost": (
        "autost_cifar10_uniform_4_384",
        {"dim": 32, "mlp_ratios": (2, 3), "heads": (2, 4), "image_size": 16, "T": 3},
    ),
    "sts_transformer": (
        "sts_transformer_dvs128_2_256",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 32, "num_classes": 10, "T": 5},
    ),
    "sstformer": (
        "sstformer_poker",
        {
            "dim": 16,
            "heads": 2,
            "widths": (4, 8, 8, 8),
            "channels": 5,
            "image_size": 64,
            "num_classes": 10,
            "T": 8,
        },
    ),
    "spikformer_lt": (
        "spikformer_lt_fourier_cifar10_4_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3},
    ),
    "spikformer_lt_wavelet": (
        "spikformer_lt_wavelet_cifar10_4_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3},
    ),
    "spiking_vit_dts": (
        "spiking_vit_dts_cifar10_4_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 5, "scale": 0.5},
    ),
    "dista": (
        "dista_cifar10_4_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 16, "T": 3, "scale": 0.5},
    ),
    "spikformer_v2": (
        "spikformer_v2_cifar10_4_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3, "scale": 0.5},
    ),
    "mast": (
        "mast_cifar10_4_384",
        {"depth": 1, "dim": 64, "heads": 2, "image_size": 8, "T": 5, "scale": 0.5},
    ),
    "te_spikformer": (
        "te_spikformer_cifar10dvs_2_256",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 32, "T": 3},
    ),
    "revsformer": (
        "revsformer_cifar10_2_384",
        {"depth": 1, "dim": 32, "heads": 2, "image_size": 8, "T": 3},
    ),
    "spiking_vgg": (
        "spiking_vgg9_cifar10",
        {
            "features": "8 8 A 16",
            "hidden": (32,),
            "image_size": 8,
            "T": 3,
            "bias": True,
            "norm": "batch",
        },
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

# Where shortcuts carry membranes, every branch adds to them: less bias keeps neurons from always
# firing.
MEMBRANES = (
    "spike_driven_transformer",
    "spikingformer",
    "spiking_resformer",
    "max_former",
    "swformer",
    "rev",
    "autost",
)


def small(family, **options):
    """A small network whose neurons fire, with running statistics of its own."""
    torch.manual_seed(0)
    name, overrides = SMALL[family]
    net = create_model(name, **(overrides | options))
    gain, bias = (1.0, 3.0), (0.5, 2.0)
    if family.startswith(MEMBRANES):
        gain, bias = (2.0, 5.0), (0.2, 1.5)
    if family == "spike_driven_transformer_v3":  # fires integers, which are seldom all 0
        bias = (0.0, 1.2)
    if family == "mast":  # three scores below 1 weigh every current
        gain, bias = (8.0, 24.0), (4.0, 16.0)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d) and family == "max_former":
            module.reset_parameters()  # drawn so small that little reaches the neurons
        if isinstance(module, torch.nn.BatchNorm2d | BGN):
            torch.nn.init.uniform_(module.weight, *gain)
            torch.nn.init.uniform_(module.bias, *bias)
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.2, 0.6)
        if isinstance(module, torch.nn.Linear):
            # Neurons behind linear layers have no norm to help them.
            if family == "spikeformer_ct":
                torch.nn.init.normal_(module.weight)
            else:
                torch.nn.init.xavier_normal_(module.weight, gain=2.5)
    if family == "sstformer":  # its ResNet has no neurons, and only grows
        for module in net.resnet.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.3, 0.6)
                torch.nn.init.zeros_(module.bias)
    return net
