"""IM-LIF, a reconstruction, held to the equations of its docstring and the attention of TA-SNN."""

import torch

from rheobase.layers import TemporalAttention
from rheobase.neurons import IMLIF
from rheobase.ops.scan import use_backend


def test_halves_are_taken_by_float32_scores() -> None:
    spikes = IMLIF(T=5)(torch.rand(5, 2, 3, dtype=torch.bfloat16))
    assert spikes.dtype == torch.bfloat16


def test_its_current_keeps_what_the_attention_says() -> None:
    torch.manual_seed(0)
    neuron, attention = IMLIF(T=5, reduction=2).double(), TemporalAttention(5, reduction=2).double()
    for ours, theirs in zip((neuron.score[0], neuron.score[2]), attention.children(), strict=True):
        theirs.load_state_dict(ours.state_dict())
    x = 2.0 * torch.rand(5, 2, 3, 4, dtype=torch.float64)
    kept = attention.scores(x)
    assert kept.shape == (5, 2) and kept.std() > 0
    current = u = torch.zeros_like(x[0])
    spikes = []
    for t, x_t in enumerate(x):
        current = kept[t].view(2, 1, 1) * current + x_t
        h = u + (current - u) / 2.0
        spikes.append((h >= 1.0).double())
        u = h * (1.0 - spikes[-1])
    with use_backend("reference"):
        found = neuron(x)
    assert torch.equal(found, torch.stack(spikes))
    assert 0 < found.mean() < 1
