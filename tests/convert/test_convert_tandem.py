"""Progressive tandem learning on real digits, and its gradient by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rheobase.convert import convert, progressive_tandem
from rheobase.convert.tandem import TandemStage, _Pair
from rheobase.data import get_dataset


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = get_dataset("mnist_sample", train=True)
    pairs = [data[i] for i in range(400)]
    images = F.avg_pool2d(torch.stack([image for image, _ in pairs]), 2)
    return images, torch.tensor([label for _, label in pairs])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(196, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10)
    )


def trained(x: Tensor, y: Tensor) -> nn.Sequential:
    ann = network()
    optimiser = torch.optim.Adam(ann.parameters(), lr=5e-3)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(ann(x), y).backward()
        optimiser.step()
    return ann.eval()


def accuracy(logits: Tensor, y: Tensor) -> float:
    return float((logits.argmax(1) == y).float().mean())


def test_gradients_are_those_of_the_ann_at_the_counts(digits):
    x, y = digits[0][:20].double(), digits[1][:20]
    ann = network().double().eval()
    net = convert(ann, x, recipe="tandem", T=6)
    F.cross_entropy(_Pair(net, net.origin.ann)(x, 2), y).backward()
    # By hand: counts forward, from the spiking network alone; the ANN's derivatives backward.
    counts: dict[str, Tensor] = {}
    for name in ("2", "4"):
        net.body.get_submodule(name).register_forward_hook(
            lambda m, a, out, name=name: counts.update({name: out.unflatten(0, (6, -1)).sum(0)})
        )
    with torch.no_grad():
        logits = net(x).sum(0)
    first, second = counts["2"], counts["4"]
    wrong = (logits.softmax(1) - F.one_hot(y, 10)) / len(x)
    back = (wrong @ ann[5].weight) * (ann[3](first) > 0.0)
    deeper = (back @ ann[3].weight) * (ann[1](x.flatten(1)) > 0.0)
    found = net.origin.ann.module
    expected = {"5": wrong.T @ second, "3": back.T @ first, "1": deeper.T @ x.flatten(1)}
    for name, gradient in expected.items():
        torch.testing.assert_close(found.get_submodule(name).weight.grad, gradient.detach())


def test_what_few_steps_lose_is_learned_again(digits):
    x, y = digits
    ann = trained(x[:300], y[:300])
    before = ann[5].weight.clone()
    plain = convert(ann, x[:128], recipe="tandem", T=3)
    stages: list[TandemStage] = []
    snn = progressive_tandem(
        ann, x[:300], y[:300], T=3, epochs=60, patience=12, learning_rate=3e-3, batch_size=50,
        on_stage=stages.append,
    )  # fmt: skip
    assert [stage.layer for stage in stages] == ["2", "4"]
    assert torch.equal(ann[5].weight, before), "the ANN is left as it is"
    with torch.no_grad():
        lost = accuracy(ann(x[300:]), y[300:]) - accuracy(plain.mean_output(x[300:]), y[300:])
        gained = accuracy(snn.mean_output(x[300:]), y[300:])
        gained -= accuracy(plain.mean_output(x[300:]), y[300:])
    assert lost > 0.1 and gained > 0.5 * lost, (lost, gained)
    with pytest.raises(ValueError, match="at least 20 inputs"):
        progressive_tandem(ann, x[:5], y[:5])
