"""What is special about each family of convolutional networks."""

import re

import pytest
import torch
from model_toys import small
from torch import nn

import rheobase
from rheobase.layers import MPBN, over_time
from rheobase.models import create_model, load_official
from rheobase.models.autosnn import BLOCKS, AutoSNNSupernet
from rheobase.models.registry import families
from rheobase.models.snn_supernet import SearchedNet, SearchedNetConfig, Supernet
from rheobase.models.spiking_densenet import ModerateDropout, Readout
from rheobase.neurons import GLIF


def parameters(name, **overrides):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **overrides).parameters())


def same(a, b, x):
    with torch.no_grad():
        return torch.equal(a.eval()(x), b.eval()(x))


def test_counts_of_papers_with_parameters_in_norms_or_neurons():
    """Those of BNTT (at T = 25), Diet-SNN, LTMD, GLIF (channel-wise) and MPBN."""
    assert parameters("spiking_vgg9_cifar10") == 5_993_280
    assert parameters("spiking_vgg11_cifar10") == 11_527_040
    assert parameters("spiking_vgg16_cifar10", neuron="diet_lif") == 39_917_278
    assert parameters("spiking_vgg16", neuron="diet_lif", bias=False) == 138_344_158
    assert parameters("spiking_densenet102") == 6_820_282 - 2  # those of the readout never learn
    assert parameters("glif_resnet19_cifar10", T=4, hidden=None, num_classes=100) == 12_667_392
    assert parameters("glif_resnet18_cifar10", T=4, hidden=None, num_classes=100) == 11_265_024
    assert parameters("glif_resnet34") == 21_890_304
    # The code's class of the MS variant has 100 classes by default; those of ImageNet are 1000.
    assert parameters("glif_ms_resnet34", num_classes=100) == 21_424_576
    assert parameters("glif_ms_resnet34") == 21_885_376
    assert parameters("glif_ms_resnet18") == 11_739_584
    # MPBN's released ResNet-19: stem of 128, one linear layer, two numbers a neuron's channel.
    assert parameters("mpbn_resnet19_cifar10") == 12_569_226 + 2 * (7 * 128 + 6 * 256 + 4 * 512)
    wide = parameters("wide_7b_net_cifar10dvs") - 16 - 1_290  # without tau of PLIF and the last
    assert parameters("glif_wide_7b_net_cifar10dvs") == wide + 23 * 1_472 + 11_530


def test_networks_with_linear_layers_refuse_another_size():
    for family in ("spiking_vgg", "plif_net", "seven_b_net", "snasnet", "autosnn"):
        net = small(family)
        with pytest.raises(ValueError, match=r"images of side 8.*image_size"):
            net(torch.rand(1, net.config.channels, 12, 12))


TET_SPELLINGS = {  # the released code registers every layer more than once
    "conv1.weight": ["conv1.weight", "conv1_s.layer.module.weight"],
    "bn1.weight": ["bn1.bn.weight", "bn1.seqbn.module.weight", "conv1_s.bn.bn.weight",
                   "conv1_s.bn.seqbn.module.weight"],
    "layer1.0.bn2.running_var": ["layer1.0.bn2.bn.running_var",
                                 "layer1.0.conv2_s.bn.seqbn.module.running_var"],
    "layer2.0.downsample.0.weight": ["layer2.0.downsample.layer.module.weight",
                                     "layer2.0.downsample.layer.weight"],
    "layer2.0.downsample.1.bias": ["layer2.0.downsample.bn.seqbn.module.bias",
                                   "layer2.0.downsample.bn.bias"],
    "fc1.bias": ["fc1.bias", "fc1_s.layer.module.bias", "fc1_s.layer.bias"],
}  # fmt: skip


@pytest.mark.parametrize("ours", TET_SPELLINGS)
def test_every_spelling_of_tdbn_and_tet(ours):
    rename = next(f for f in families() if f.name == "tdbn_resnet").official["tdbn_resnet"].rename
    assert {rename(key) for key in TET_SPELLINGS[ours]} == {ours}


@pytest.mark.parametrize(
    ("family", "system", "kwargs"),
    [
        ("tdbn_resnet", "tdbn_resnet", {"T": 3}),
        ("tet_resnet", "tet_resnet", {"T": 3}),
        ("ms_resnet", "ms_resnet", {"T": 3}),
        ("ms_resnet_deep", "ms_resnet", {"T": 3}),
        ("att_ms_resnet", "ms_resnet", {}),
        ("seven_b_net", "wide_7b_net", {"T": 3}),
    ],
)
def test_the_config_is_read_off_the_weights(family, system, kwargs):
    net = small(family)
    loaded = load_official(system, net.state_dict(), kwargs)
    channels, side = net.config.channels, net.config.image_size
    assert same(net, loaded, torch.rand(2, channels, side, side))


def test_weights_that_do_not_tell_the_architecture_ask_for_it():
    for family, option in (("snasnet", "cnt_mat"), ("autosnn", "arch")):
        with pytest.raises(ValueError, match=f"give {option}="):
            load_official(family, small(family).state_dict())


def test_foreign_weights_are_refused():
    for system in ("spiking_vgg", "vggsnn", "tdbn_resnet", "ms_resnet", "plif_net", "wide_7b_net",
                   "spiking_densenet"):  # fmt: skip
        with pytest.raises(ValueError, match=r"not an? "):
            load_official(system, {"head.weight": torch.zeros(2, 2)})


def test_attention_over_a_sequence_cannot_stream():
    with (
        pytest.raises(ValueError, match="not causal"),
        rheobase.streaming(small("att_ms_resnet").eval()),
    ):
        pass


def test_membrane_shortcuts_carry_the_current_through_a_fresh_network():
    net = create_model("ms_resnet18", depths=(1, 2), width=8, num_classes=10)
    current = torch.randn(3, 2, 16, 4, 4)
    assert torch.equal(net.stages[1][1](current), current)


def test_shortcuts_of_glif_ms_resnets_carry_normalised_currents():
    net = create_model("glif_ms_resnet18", depths=(2,), widths=(8,), stem_width=8, T=3)
    block = net.layer1[1]
    nn.init.zeros_(block.bn2.weight)
    current = torch.randn(3, 2, 8, 4, 4)
    assert torch.equal(block(current), over_time(current, *block.downsample))


def test_tdbn_scales_to_the_threshold_of_the_neuron():
    net = create_model("tdbn_resnet19_cifar10", neuron_kwargs={"v_threshold": 0.8})
    assert net.bn1.scale == 0.8
    assert net.layer1[0].bn2.scale == pytest.approx(0.8 / 2**0.5)
    assert net.layer1[0].downsample[1].scale == pytest.approx(0.8 / 2**0.5)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("glif_resnet19_cifar10", marks=pytest.mark.long),
        "glif_wide_7b_net_cifar10dvs",
        "glif_ms_resnet18",
    ],
)
def test_neurons_with_parameters_of_every_channel_and_step_learn(name):
    sizes = {"depths": (1, 1), "widths": (4, 8)} if "resnet" in name else {"widths": (4, 4, 4, 8)}
    side = 16 if "ms" in name else 8
    net = create_model(name, **sizes, T=3, image_size=side)
    images = torch.rand(2, net.config.channels, side, side)
    net(images).square().sum().backward()
    gates = [m.alpha for m in net.modules() if isinstance(m, GLIF)]
    assert {gate.numel() for gate in gates} >= {4, 8}
    assert all(p.grad is not None for p in net.parameters())
    with pytest.raises(ValueError, match=r"T=3 and given T=5"):
        net(images.expand(5, *images.shape).clone())


def test_a_network_of_mpbn_folds_to_the_same_spikes():
    torch.manual_seed(0)
    net = create_model("mpbn_resnet19_cifar10", depths=(1, 1), widths=(4, 8), hidden=8).double()
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(3):
        net(images)  # the running statistics become its own
    for neuron in net.modules():
        if isinstance(neuron, MPBN):
            neuron.bn.weight.data[::2] *= -1.0
    before = net.eval()(images)
    for neuron in net.modules():
        if isinstance(neuron, MPBN):
            neuron.fold()
    assert before.abs().sum() > 0
    torch.testing.assert_close(net(images), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention", ["TA", "CSA", "TCSA", "STSC"])
@pytest.mark.parametrize("norm", ["bntt", "tebn"])
def test_vgg_with_norms_and_attention_over_time_trains(norm, attention):
    net = create_model(
        "vggsnn", features="8 A 8", image_size=8, T=3, norm=norm, attention=attention
    )
    net(torch.rand(3, 2, 2, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_readout_gives_the_membrane_when_it_fires_and_the_gradient_near_it():
    readout = Readout(1, 1)
    nn.init.ones_(readout.fc.weight)
    nn.init.zeros_(readout.lateral.weight)
    x = torch.tensor([0.2, 0.6, -0.3]).view(1, 3, 1).requires_grad_()
    y = readout(x)
    assert y.flatten().tolist() == pytest.approx([0.0, 0.6, 0.0])
    y.sum().backward()
    assert x.grad.flatten().tolist() == [1.0, 1.0, 0.0]  # -0.3 is below tanh(0.5) - 0.5


def test_moderate_dropout_spares_the_strong():
    torch.manual_seed(0)
    x = torch.linspace(0.1, 1.0, 10).repeat(3, 4000, 1)
    y = ModerateDropout(0.2).train()(x)
    assert torch.equal((y != 0)[0], (y != 0)[2])  # one mask for all steps
    kept = (y != 0).float().mean((0, 1))
    p = torch.linspace(0, 1, 10)
    torch.testing.assert_close(kept, 1 - (1 - p) * 0.2 / 0.5, atol=0.03, rtol=0)
    torch.testing.assert_close(y.mean((0, 1)), x[0, 0], atol=0.03, rtol=0.03)


def test_one_step_of_one_sample_has_the_gradients_of_its_memory_orders():
    """Folding [1, 1, ...] must not give batch norm a stride that PyTorch 2.13 reads wrongly."""
    torch.manual_seed(0)
    bn, conv = nn.BatchNorm2d(4).eval(), nn.Conv2d(4, 4, 3, padding=1, bias=False)
    values, gradients = torch.randn(1, 4, 6, 6), []
    for order in (torch.contiguous_format, torch.channels_last):
        x = values.contiguous(memory_format=order).unsqueeze(0).requires_grad_()
        y = over_time(over_time(x, bn) + torch.zeros_like(x), conv)
        gradients.append(torch.autograd.grad(y.square().sum(), x)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_cell_with_feedback_needs_neurons_that_step():
    net = create_model(
        "snasnet_backward_cifar10",
        width=4,
        hidden=8,
        image_size=8,
        pool=2,
        neuron=lambda: nn.ReLU(),
    )
    with pytest.raises(TypeError, match="ReLU"):
        net(torch.rand(1, 3, 8, 8))


def test_feedback_reaches_the_next_step_only():
    torch.manual_seed(0)
    net = small("snasnet", cell="0001 0000 0000 1000").eval()
    x = torch.rand(3, 1, 8, 4, 4)
    y = net.cell1(x)  # the output of a step is added to the input of the next
    torch.testing.assert_close(y, x.cumsum(0))


def test_a_path_of_the_supernet_is_the_network_of_its_blocks():
    torch.manual_seed(0)
    net = small("autosnn").eval()
    supernet = AutoSNNSupernet(net.config).eval()
    supernet.stem.load_state_dict(net.stem.state_dict())
    supernet.fc.load_state_dict(net.fc.state_dict())
    for choice, name, block in zip(
        supernet.choices, net.config.blocks.split(), net.blocks, strict=True
    ):
        choice[name].load_state_dict(block.state_dict())
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(supernet(x, net.config.blocks), net(x))
    assert not torch.equal(supernet(x, " ".join(5 * [BLOCKS[1]])), net(x))
    with pytest.raises(ValueError, match="unknown block"):
        supernet(x, "skip skip skip skip SRB")


@pytest.fixture
def masked():
    """A supernet in which a choice has been made at every layer, and the network it found."""
    torch.manual_seed(0)
    supernet = Supernet(SearchedNetConfig("8k5 M 16k5 16k3", image_size=8)).eval()
    for layer, (kernel, quarters) in zip(supernet.layers[::2], [(0, 2), (1, 1)], strict=False):
        layer.kernel_scores.data[kernel] = layer.width_scores.data[quarters] = 1.0
    supernet.layers[3].width_scores.data[3] = 1.0
    for layer in supernet.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.bias, 0.5, 1.5)
    assert supernet.found.features == "6k3 M 8k5 16k3"
    net, kept = SearchedNet(supernet.found).eval(), 3
    layers = [layer for layer in supernet.layers if not isinstance(layer, nn.MaxPool2d)]
    convs = [layer for layer in net.features if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in net.features if isinstance(layer, nn.BatchNorm2d)]
    for layer, conv, norm in zip(layers, convs, norms, strict=True):
        inner = (layer.conv.kernel_size[0] - conv.kernel_size[0]) // 2
        width, edge = conv.out_channels, layer.conv.kernel_size[0] - inner
        conv.weight.data = layer.conv.weight.data[:width, :kept, inner:edge, inner:edge]
        norm.bias.data = layer.norm.bias.data[:width]
        kept = width
    net.fc.load_state_dict(supernet.fc.state_dict())
    return supernet, net


def test_masks_give_the_found_network_and_its_synaptic_operations(masked):
    supernet, net = masked
    x = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        logits, operations = supernet(x)
        torch.testing.assert_close(logits, net(x))
    inside, expected = list(net.features), 0.0
    with torch.no_grad():
        y = x.expand(net.T, *x.shape)
        for layer in inside:
            if isinstance(layer, nn.Conv2d):
                reach = layer.kernel_size[0] ** 2 * layer.out_channels
                expected += float(y.count_nonzero()) / len(x) * reach
            plain = isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d)
            y = over_time(y, layer) if plain else layer(y)
    assert float(operations) == pytest.approx(expected)


def test_masks_learn_from_loss_and_operations():
    torch.manual_seed(0)
    net = Supernet(SearchedNetConfig("8k5 M 16k5", image_size=8)).train()
    logits, operations = net(torch.rand(4, 3, 8, 8))
    (logits.square().mean() + operations.log()).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.architecture)
    with pytest.raises(ValueError, match="multiples of 4"):
        Supernet(SearchedNetConfig("10k3"))


def test_released_vggsnn_keys():
    rename = next(f for f in families() if f.name == "spiking_vgg").official["vggsnn"].rename
    with torch.device("meta"):
        ours = {re.sub(r"\.\w+$", "", key) for key in create_model("vggsnn").state_dict()}
    layers = [0, 1, 3, 4, 6, 7, 9, 10]
    theirs = {rename(f"features.{i}.fwd.module.{j}") for i in layers for j in (0, 1)}
    assert theirs | {"classifier.0"} == ours
