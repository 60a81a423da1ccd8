import subprocess
import sys

import pytest
import torch

from rheobase.models import create_model, list_models, model_family

# Published, without the parameters that the official code never uses; ResNets as torchvision's.
PARAMETERS = {
    "spikformer_8_384": 16_816_024,
    "spikformer_6_512": 23_373_352,
    "spikformer_8_512": 29_689_384,
    "spikformer_10_512": 36_005_416,
    "spikformer_8_768": 66_338_632,
    "spikformer_cifar10_4_256": 4_155_178,
    "spikformer_cifar10_2_384": 5_765_050,
    "spikformer_cifar10_4_384": 9_324_730,
    "spikformer_cifar10dvs_2_256": 2_566_666,
    "sew_resnet18": 11_689_512,
    "sew_resnet34": 21_797_672,
    "sew_resnet50": 25_557_032,
    "sew_resnet101": 44_549_160,
    "sew_resnet152": 60_192_808,
    "spiking_resnet18": 11_689_512,
    "spiking_vgg11": 132_863_336,
    "spiking_vgg13": 133_047_848,
    "spiking_vgg16": 138_357_544,
    "spiking_vgg19": 143_667_240,
    "spiking_vgg11_bn": 132_868_840,
    "spiking_vgg13_bn": 133_053_736,
    "spiking_vgg16_bn": 138_365_992,
    "spiking_vgg19_bn": 143_678_248,
    "vggsnn": 9_271_498,
    "vggsnn_without_pooling": 9_271_498,
    "tdbn_resnet19_cifar10": 12_630_858,
    "tet_resnet19_cifar10": 12_630_858,
    "tdbn_resnet34": 21_797_672,
    "tdbn_resnet50": 25_557_032,
    "ms_resnet18": 11_693_736,
    "ms_resnet34": 21_801_896,
    "ms_resnet104": 77_350_504,
    "att_ms_resnet18": 11_867_960,
    "att_ms_resnet34": 22_116_552,
    "att_ms_resnet104": 78_369_598,
    "plif_net_mnist": 13_201_128,
    "plif_net_fashion_mnist": 13_201_128,
    "plif_net_nmnist": 17_134_440,
    "plif_net_cifar10": 36_720_492,
    "plif_net_cifar10dvs": 4_691_818,
    "plif_net_dvs128gesture": 1_698_933,
    "wide_7b_net_cifar10dvs": 1_192_218,
    "seven_b_net_dvs128gesture": 130_426,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    with torch.device("meta"):
        net = create_model(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


def test_every_registered_model_builds():
    with torch.device("meta"):
        for name in list_models():
            assert create_model(name).config.T >= 1, name


def test_list_models_matches_shell_patterns():
    assert list_models("sew_resnet*") == [f"sew_resnet{n}" for n in (101, 152, 18, 34, 50)]
    assert list_models("no such") == []
    assert set(list_models("spikformer_dvs*")) < set(list_models())


def test_model_family():
    assert model_family("spiking_resnet34") == "sew_resnet"
    assert model_family("spikformer_ann_8_512") == "spikformer_ann"


def test_unknown_names_offer_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'spikformer_8_512'"):
        create_model("spikformer8_512")
    with pytest.raises(ValueError, match=r"'num_class'.*'num_classes'"):
        create_model("spikformer_8_512", num_class=10)
    with pytest.raises(ValueError, match=r"'liff'.*'lif'"):
        create_model("spikformer_8_512", neuron="liff")


def test_a_network_without_neurons_refuses_one():
    with pytest.raises(ValueError, match="no spiking neurons"):
        create_model("spikformer_ann_mnist_2_64", neuron="lif")


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("spikformer_mnist_2_64", {"heads": 3}, "heads=3 does not divide dim=64"),
        ("spikformer_mnist_2_64", {"dim": 60}, "multiple of 8"),
        ("spikformer_mnist_2_64", {"patch_size": 3}, "patch_size must be"),
        ("spikformer_mnist_2_64", {"image_size": 30}, "not a multiple of patch_size"),
        ("spikformer_mnist_2_64", {"T": 0}, "positive"),
        ("spikformer_mnist_2_64", {"token_layers": "dense"}, "token_layers"),
        ("sew_resnet18", {"depth": 20}, "depth must be one of"),
        ("sew_resnet18", {"connect": "OR"}, "unknown SEW join 'OR'"),
        ("sew_resnet18", {"num_classes": 0}, "positive"),
        ("vggsnn", {"features": "64 X"}, "unknown layer 'X'"),
        ("vggsnn", {"image_size": 8}, "too small"),
        ("tdbn_resnet19_cifar10", {"widths": (64,)}, "one number a stage each"),
        ("tdbn_resnet19_cifar10", {"norm": "layer"}, "norm must be"),
        ("tet_resnet19_cifar10", {"stem": "5x5"}, "stem must be"),
        ("ms_resnet18", {"stem": "5x5"}, "stem must be"),
        ("ms_resnet18", {"depths": ()}, "positive"),
        ("att_ms_resnet18", {"width": 4}, "leaves nothing of 4 channels"),
        ("plif_net_mnist", {"image_size": 2}, "too small for 2 poolings"),
        ("wide_7b_net_cifar10dvs", {"connect": "OR"}, "unknown SEW join 'OR'"),
        ("wide_7b_net_cifar10dvs", {"image_size": 64}, "too small for 7 poolings"),
        ("spiking_densenet102", {"depths": (2, 0)}, "positive"),
        ("snasnet_backward_cifar10", {"cell": "03 00"}, "four rows of four digits"),
        ("snasnet_backward_cifar10", {"cell": "0300 0000 0000 0000"}, "no way from its input"),
        ("snasnet_backward_cifar10", {"cell": "1003 0000 0000 0000"}, "with itself"),
        ("snasnet_backward_cifar10", {"image_size": 20}, "not a multiple of"),
        ("autosnn_16", {"blocks": "SRB_k3"}, "must be 5 words"),
        ("autosnn_16", {"blocks": "SRB_k4 skip skip skip skip"}, "unknown block 'SRB_k4'"),
        ("searched_net_cifar10", {"features": "64k4"}, "unknown layer '64k4'"),
        ("searched_net_cifar10", {"features": "M"}, "must hold a convolution"),
    ],
)
def test_configs_refuse_what_does_not_fit(name, overrides, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **overrides)


def test_importing_the_package_imports_no_model():
    code = (
        "import sys, rheobase; "
        "sys.exit(any(name.startswith('rheobase.models.spikformer') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
