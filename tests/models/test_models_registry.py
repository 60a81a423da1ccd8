import re
import subprocess
import sys

import pytest
import torch
from model_toys import SMALL

from rheobase.models import create_model, list_models, model_family
from rheobase.neurons import LIF
from rheobase.surrogate import ATan

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
    "spike_driven_transformer_v2_8_256": 15_112_208,
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
    # Less-known spiking transformers.
    "swformer_6_512": 18_462_760,
    "swformer_8_512": 23_141_928,
    "swformer_6_512_fl2": 21_806_632,
    "swformer_8_512_fl2": 27_600_424,
    "swformer_6_512_fl16": 17_245_096,
    "swformer_8_512_fl16": 21_518_376,
    "swformer_cifar10_4_384": 7_022_458,
    "swformer_cifar10_4_512": 12_463_946,
    "swformer_cifar10dvs_2_256": 2_157_834,
    # Of the official event files without pos_embed [1, 64, 256] and norm.
    "ost_8_384": 19_363_944,
    "ost_6_512": 27_291_724,
    "ost_8_512": 33_868_760,
    "ost_10_512": 40_445_796,
    "ost_cifar10_4_384": 11_372_114,
    "ost_cifar10dvs_2_256": 3_498_838 - 16_384 - 512,
    "ost_dvs128_1_256": 1_856_206 - 16_384,
    "revsformer_cifar10_2_384": 5_766_586,
    "revsformer_cifar10_4_384": 9_323_962,
    "revsformer_cifar10dvs_2_256": 2_569_226,
    "revsformer_dvs128_2_256": 2_569_739,
    # Without ResNet-18 625_759_656, of which 14_796_704 are never used; and the classifier.
    "sstformer_poker": 625_759_656 - 14_796_704 + 11_176_512 + 4097 * 114,
    "revs_resnet21_cifar10": 10_967_690,
    "revs_resnet37_cifar10": 23_510_154,
    "revs_resnet109_cifar10": 69_995_146,
    "revs_resnet24_cifar10dvs": 260_362,
    "autost_base": 34_438_762,
    "sts_transformer_dvs128_2_256": 1_963_633 - 2 * 768 * 258,
    "sts_transformer_dvs128_2_256_t16": 1_969_033 - 2 * 768 * 258,
    "spikeformer_ct_7_3x2x4": 39_320_836,
    "spikeformer_ct_cifar10dvs_7_3x2x3": 8_792_993,
    "spikeformer_ct_dvs128_7_5x3x1": 9_279_900,
    # Of other tasks than naming a class.
    "spike_t": 20_545_951,
    "spike_clip": 9_513_396 + 47_358_980,
    # One head of more classes than a count above: `dim + 1` parameters a class.
    "spike_driven_transformer_cifar100_2_256": 2_567_082 - 128 + 90 * 257,
    "spikingformer_cifar100_4_256": 4_156_202 - 4096 + 90 * 257,
    "spikingformer_cifar100_2_384": 5_765_818 - 3072 + 90 * 385,
    "spikingformer_cifar100_4_384": 9_326_266 - 6144 + 90 * 385,
    "spikingformer_cml_cifar100_4_256": 4_156_202 - 4096 + 90 * 257,
    "spikingformer_cml_cifar100_2_384": 5_765_818 - 3072 + 90 * 385,
    "spikingformer_cml_cifar100_4_384": 9_326_266 - 6144 + 90 * 385,
    "spikingformer_cml_cifar10dvs_2_256": 2_568_714 - 2048,
    "spikingformer_cml_dvs128_2_256": 2_568_971 - 2048,
    "spiking_resformer_cifar10dvs": 10_793_152,
    "max_former_cifar10_4_384": 6_568_282,
    "max_former_cifar100_4_384": 6_568_282 + 90 * 385,
    "tim_ncaltech101": 2_570_794 - 2048 + 91 * 257,
    "tim_ncars": 2_570_794 - 2048 - 8 * 257,
    "tim_ucf101dvs": 2_570_794 - 2048 + 91 * 257,
    "tim_hmdb51dvs": 2_570_794 - 2048 + 41 * 257,
    "swformer_cifar100_4_384": 7_022_458 + 90 * 385,
    "swformer_cifar100_4_512": 12_463_946 + 90 * 513,
    "ost_cifar100_4_384": 11_372_114 + 90 * 385,
    "revsformer_cifar100_2_384": 5_766_586 + 90 * 769,
    "revsformer_cifar100_4_384": 9_323_962 + 90 * 769,
    "revs_resnet21_cifar100": 10_967_690 + 90 * 897,
    "revs_resnet37_cifar100": 23_510_154 + 90 * 897,
    "revs_resnet109_cifar100": 69_995_146 + 90 * 897,
    "revs_resnet24_dvs128": 260_362 + 97,
    "sstformer_hardvs": 625_759_656 - 14_796_704 + 11_176_512 + 4097 * 300,
    # CML moves poolings; the released code has CML-Spikformer for CIFAR alone.
    "cml_spikformer_8_384": 16_816_024,
    "cml_spikformer_8_512": 29_689_384,
    "cml_spikformer_8_768": 66_338_632,
    "cml_spikformer_cifar100_4_256": 4_155_178 + 90 * 257,
    "cml_spikformer_cifar100_2_384": 5_765_050 + 90 * 385,
    "cml_spikformer_cifar100_4_384": 9_324_730 + 90 * 385,
    "cml_spikformer_cifar10dvs_2_256": 2_566_666,
    "cml_spikformer_dvs128_2_256": 2_566_666 + 257,
    "spike_driven_transformer_v2_15m_ade20k": 16_470_142,
    "spike_driven_transformer_v2_55m_ade20k": 61_520_022,
    # No code was released of what follows (of AutoST, not its results): Spikformer's count, and
    # what the paper adds or takes away.
    "autost_cifar10_uniform_4_384": 9_324_730 + 31,  # one tau a neuron
    "autost_cifar100_uniform_4_384": 9_324_730 + 31 + 90 * 385,
    "spiking_vit_dts_8_512": 29_689_384 + 61 * 4,  # a score for each neuron and step
    "spiking_vit_dts_cifar10_4_384": 9_324_730 + 33 * 6,
    "spiking_vit_dts_cifar100_4_384": 9_324_730 + 33 * 6 + 90 * 385,
    # One tau a neuron; a matrix of memory for queries, keys and values of each block.
    "dista_cifar10_4_384": 9_324_730 + 33 + 4 * 3 * 384**2,
    "dista_cifar100_4_384": 9_324_730 + 33 + 4 * 3 * 384**2 + 90 * 385,
    "dista_cifar10dvs_2_256": 2_566_666 + 19 + 2 * 3 * 256**2,
    # A norm instead of four linear layers (with biases in the CIFAR file) and their norms.
    "spikformer_lt_fourier_cifar10_4_384": 9_324_730 + 4 * (2 - 4 * (384 + 3)) * 384,
    "spikformer_lt_wavelet_cifar10_4_384": 9_324_730 + 4 * (2 - 4 * (384 + 3)) * 384,
    "spikformer_lt_fourier_cifar100_4_384": 9_359_380 + 4 * (2 - 4 * (384 + 3)) * 384,
    "spikformer_lt_wavelet_cifar100_4_384": 9_359_380 + 4 * (2 - 4 * (384 + 3)) * 384,
    "spikformer_lt_fourier_cifar10dvs_2_256": 2_566_666 + 2 * (2 - 4 * (256 + 2) - 1) * 256,
    "spikformer_lt_wavelet_cifar10dvs_2_256": 2_566_666 + 2 * (2 - 4 * (256 + 2) - 1) * 256,
    "spikformer_lt_fourier_dvs128_2_256": 2_566_923 + 2 * (2 - 4 * (256 + 2) - 1) * 256,
    "spikformer_lt_wavelet_dvs128_2_256": 2_566_923 + 2 * (2 - 4 * (256 + 2) - 1) * 256,
    # Three scores in each of the stem's four stages: of channels, time and space.
    "mast_cifar10_4_384": 9_324_730 + (48**2 + 96**2 + 192**2 + 384**2) // 4 + 4 * (16 + 18),
    "mast_cifar100_4_384": 9_359_380 + (48**2 + 96**2 + 192**2 + 384**2) // 4 + 4 * (16 + 18),
    "mast_cifar10dvs_2_256": 2_566_666 + (32**2 + 64**2 + 128**2 + 256**2) // 4 + 4 * (256 + 18),
    "mast_dvs128_2_256": 2_566_923 + (32**2 + 64**2 + 128**2 + 256**2) // 4 + 4 * (256 + 18),
    "te_spikformer_cifar10dvs_2_256": 2_566_666,
    "te_spikformer_dvs128_2_256": 2_566_666 + 257,
    "te_spikformer_ncaltech101_2_256": 2_566_666 + 91 * 257,
    "spikformer_v2_8_384": 29_111_272,  # 29.11 M in the paper
    "spikformer_v2_8_512": 51_545_064,  # 51.55 M
    "spikformer_v2_16_768": 172_278_760,  # 172 M
    # Sizes of ours for small images and tests.
    "spikformer_v2_cifar10_4_384": 21_643_738,
    "spikformer_v2_cifar100_4_384": 21_643_738 + 90 * 385,
    "spikformer_mnist_2_64": 163_906,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    with torch.device("meta"):
        net = create_model(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("attention", "parameters"),
    [
        ("SDSA-1", 31_333_864),
        ("SDSA-2", 28_593_832),  # without V; 28.6 M are remembered of the paper
        ("SDSA-4", 31_333_872),  # one scale more in each of the 8 blocks
    ],
)
def test_parameter_counts_of_other_attentions(attention, parameters):
    with torch.device("meta"):
        net = create_model("spike_driven_transformer_v2_8_384", attention=attention)
    assert sum(p.numel() for p in net.parameters()) == parameters


# Of the surveys' tables, and the closest to them; twins without spikes have their model's count.
ZOO = re.compile(
    "(cml_)?spikformer_(?!ann)|spik(e|ing)former|spike_driven|(qk|sgl|max_|sw|sst|revs)former"
    "|te_spikformer|spiking_resformer|tim_|ost_|revs_resnet|autost|sts_|spiking_vit|dista|mast"
)


def test_every_model_of_the_zoo_is_counted():
    assert {name for name in list_models() if ZOO.match(name)} <= PARAMETERS.keys()


def test_every_family_of_the_zoo_has_a_toy():
    """That test_models_networks.py and test_models_train.py run through."""
    families = {model_family(name) for name in list_models() if ZOO.match(name)}
    assert families - {"meta_segmenter"} <= {model_family(name) for name, _ in SMALL.values()}


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


def test_the_neuron_of_a_paper_takes_a_surrogate_by_name():
    net = create_model("spiking_mlp_mnist", neuron_kwargs={"surrogate": "ATan"})
    assert {type(m.surrogate) for m in net.modules() if isinstance(m, LIF)} == {ATan}
    with pytest.raises(ValueError, match="unknown option of LIF 'tauu'; did you mean 'tau'"):
        create_model("spiking_mlp_mnist", neuron_kwargs={"tauu": 3.0})


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
        (
            "spike_driven_transformer_v2_8_384",
            {"attention": "SDSA-5"},
            "attention must be one of 'SDSA-1', 'SDSA-2', 'SDSA-3', 'SDSA-4'",
        ),
        ("qkformer_10_384", {"attention": "head"}, "attention must be one of 'token', 'channel'"),
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
