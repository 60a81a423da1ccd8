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
    "spikformer_cifar100_4_256": 4_182_404 - 4096,
    "spikformer_cifar100_2_384": 5_802_772 - 3072,
    "spikformer_cifar100_4_384": 9_365_524 - 6144,
    "spikformer_cifar10dvs_2_256": 2_566_666,
    "spikformer_dvs128_2_256": 2_566_666 + 257,
    "spike_driven_transformer_8_384": 16_816_024,
    "spike_driven_transformer_6_512": 23_373_352,
    "spike_driven_transformer_8_512": 29_689_384,
    "spike_driven_transformer_10_512": 36_005_416,
    "spike_driven_transformer_8_768": 66_338_632,
    "spike_driven_transformer_cifar10_2_256": 2_567_082 - 128,
    "spike_driven_transformer_cifar10_2_512": 10_233_546 - 128,
    "spike_driven_transformer_cifar100_2_512": 10_279_716 - 128,
    "spike_driven_transformer_cifar10dvs_2_256": 2_566_794 - 128,
    "spike_driven_transformer_dvs128_2_256": 2_567_051 - 128,
    "cml_spikformer_cifar10_4_256": 4_155_178,
    "cml_spikformer_cifar10_2_384": 5_765_050,
    "cml_spikformer_cifar10_4_384": 9_324_730,
    "spikingformer_8_384": 16_816_024,
    "spikingformer_8_512": 29_689_384,
    "spikingformer_8_768": 66_338_632,
    "spikingformer_cifar10_4_256": 4_156_202 - 4096,
    "spikingformer_cifar10_2_384": 5_765_818 - 3072,
    "spikingformer_cifar10_4_384": 9_326_266 - 6144,
    "spikingformer_cifar10dvs_2_256": 2_568_714 - 2048,
    "spikingformer_dvs128_2_256": 2_568_971 - 2048,
    "spikingformer_cml_8_384": 16_816_024,
    "spikingformer_cml_8_512": 29_689_384,
    "spikingformer_cml_8_768": 66_338_632,
    "spikingformer_cml_cifar10_4_256": 4_156_202 - 4096,
    "spikingformer_cml_cifar10_2_384": 5_765_818 - 3072,
    "spikingformer_cml_cifar10_4_384": 9_326_266 - 6144,
    "qkformer_10_384": 16_473_688,
    "qkformer_10_512": 29_079_336,
    "qkformer_10_768": 64_962_760,
    "qkformer_cifar10_4_384": 6_706_234,
    "qkformer_cifar100_4_384": 6_740_884,
    "qkformer_cifar10dvs": 1_504_138,
    "qkformer_dvs128": 1_999_371,
    "spike_driven_transformer_v2_8_384": 31_333_864,
    "spike_driven_transformer_v2_8_512": 55_350_248,
    "spike_driven_transformer_v2_8_768": 123_741_160,
    "sglformer_8_384": 16_248_856 - 9216,
    "sglformer_8_512": 28_671_016 - 12_288,
    "sglformer_8_768": 64_006_216,
    "sglformer_8_384_early": 16_248_856 - 9216,
    "sglformer_8_512_early": 28_671_016 - 12_288,
    "sglformer_8_768_late": 64_006_216,
    "sglformer_cifar10_4_384": 8_852_874,
    "sglformer_cifar100_4_384": 8_887_524,
    "sglformer_cifar10dvs_3_256_T10": 4_066_130,
    "sglformer_cifar10dvs_3_256_T16": 4_164_434,
    "sglformer_dvs128_3_256_T10": 4_066_387,
    "sglformer_dvs128_3_256_T16": 4_164_691,
    "tim_cifar10dvs": 2_570_794 - 2048,
    "spike_driven_transformer_v3_t": 2_702_048,
    "spike_driven_transformer_v3_s": 5_105_608,
    "spike_driven_transformer_v3_m": 10_023_112,
    "spike_driven_transformer_v3_l": 18_987_504,
    "max_former_10_384": 16_237_240,
    "max_former_10_512": 28_653_480,
    "max_former_10_768": 63_992_200,
    "max_former_cifar10dvs_2_256": 1_455_626,
    "max_former_dvs128_2_256": 1_455_883,
    "spike_driven_transformer_v3_12_512": 83_015_952,
    "spike_driven_transformer_v3_12_768": 171_740_714,
    "spiking_resformer_ti": 11_180_992,
    "spiking_resformer_s": 17_813_824,
    "spiking_resformer_m": 35_601_472,
    "spiking_resformer_l": 60_375_680,
    "spiking_resformer_cifar10": 10_793_152,
    "spiking_resformer_cifar100": 10_827_712,
    "spiking_resformer_dvs128": 2_709_830,
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
    "tdbn_resnet18": 11_689_512,
    "tdbn_resnet34": 21_797_672,
    "tdbn_resnet50": 25_557_032,
    "tet_resnet18": 11_689_512,
    "tet_resnet34": 21_797_672,
    "tet_resnet50": 25_557_032,
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
            config = create_model(name).config
            # What settles to an equilibrium has steps of its own.
            assert getattr(config, "T", 1) >= 1, name


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
        ("spike_driven_transformer_8_384", {"heads": 7}, "heads=7 does not divide dim=384"),
        ("spike_driven_transformer_8_384", {"dim": 60}, "multiple of 8"),
        ("spike_driven_transformer_8_384", {"patch_size": 3}, "patch_size must be"),
        ("spike_driven_transformer_8_384", {"image_size": 30}, "not a multiple of patch_size"),
        ("spike_driven_transformer_8_384", {"T": 0}, "T must be positive"),
        ("spikingformer_8_384", {"patch_size": 3}, "patch_size must be"),
        ("spikingformer_8_384", {"tau": 0.0}, "tau must be positive"),
        ("qkformer_10_384", {"layout": "mnist"}, "unknown layout 'mnist'"),
        ("qkformer_10_384", {"heads": 64}, "96 channels of the first stage"),
        ("qkformer_10_384", {"depth": 3}, "a stage of 'imagenet' without blocks"),
        ("spiking_resformer_s", {"heads": (1, 4)}, "one number a stage"),
        ("spiking_resformer_s", {"stem": "vgg"}, "stem must be"),
        ("spiking_resformer_s", {"group_size": 48}, "group_size=48 does not divide"),
        ("spiking_resformer_s", {"image_size": 200}, "not a multiple of patch_size=16"),
        ("spike_driven_transformer_v2_8_384", {"heads": 7}, "heads=7 does not divide dim=384"),
        ("spike_driven_transformer_v2_8_384", {"widths": (7, 8, 8, 8)}, "the first even"),
        ("spike_driven_transformer_v2_8_384", {"image_size": 30}, "not a multiple of"),
        ("sglformer_8_384", {"layout": "mnist"}, "unknown layout 'mnist'"),
        ("sglformer_8_384", {"image_size": 112}, "not a multiple of patch_size=32"),
        ("tim_cifar10dvs", {"heads": 8}, "as many channels in a head as tokens"),
        ("tim_cifar10dvs", {"alpha": 2.0}, "alpha is a share"),
        ("spike_driven_transformer_v3_t", {"heads": 7}, "heads=7 does not divide dim=96"),
        ("spike_driven_transformer_v3_t", {"levels": 0}, "levels must be positive"),
        ("max_former_10_384", {"layout": "mnist"}, "unknown layout 'mnist'"),
        ("max_former_10_384", {"image_size": 40}, "not a multiple of patch_size=16"),
        ("spike_driven_transformer_v3_12_512", {"widths": (8, 8)}, "three numbers"),
        ("spike_driven_transformer_v3_12_512", {"drop_path": 1.0}, "below 1"),
        ("sew_resnet18", {"depth": 20}, "depth must be one of"),
        ("sew_resnet18", {"connect": "OR"}, "unknown SEW join 'OR'"),
        ("sew_resnet18", {"num_classes": 0}, "positive"),
        ("vggsnn", {"features": "64 X"}, "unknown layer 'X'"),
        ("vggsnn", {"image_size": 8}, "too small"),
        ("tdbn_resnet19_cifar10", {"widths": (64,)}, "one number a stage each"),
        ("tdbn_resnet19_cifar10", {"norm": "layer"}, "unknown norm 'layer'"),
        ("vggsnn", {"norm": "bnt"}, "unknown norm 'bnt'; did you mean 'bntt'"),
        ("vggsnn", {"attention": "SA"}, "attention must be one of"),
        ("wide_7b_net_cifar10dvs", {"first_pooled": 8}, "blocks 0 to 6"),
        ("tet_resnet19_cifar10", {"stem": "5x5"}, "stem must be"),
        ("ms_resnet18", {"stem": "5x5"}, "stem must be"),
        ("ms_resnet18", {"depths": ()}, "positive"),
        ("att_ms_resnet18", {"width": 4}, "ratio of 8 leaves nothing of 4"),
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
