"""Spikformer V2: published parameter counts, and pre-training that sees only what is visible."""

import pytest
import torch
from model_toys import small

from rheobase.models import create_model
from rheobase.models.spikformer_v2 import MaskedAutoencoder, random_mask

PUBLISHED = {"spikformer_v2_8_384": 29.11, "spikformer_v2_8_512": 51.55}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_published_to_the_last_digit(name):
    with torch.device("meta"):
        net = create_model(name)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == PUBLISHED[name]


def test_the_deep_one_has_172_million():
    with torch.device("meta"):
        net = create_model("spikformer_v2_16_768")
    assert int(sum(p.numel() for p in net.parameters()) / 1e6) == 172
    assert (net.T, len(net.blocks)) == (1, 16)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"expansion": 0}, "at least 1"), ({"cml": True}, "does not pool"), ({"dim": 12}, "of 8")],
)
def test_configs_refuse_what_does_not_fit(overrides, message):
    with pytest.raises(ValueError, match=message):
        create_model("spikformer_v2_8_384", **overrides)


class TestMaskedAutoencoder:
    @pytest.fixture
    def net(self):
        return small("spikformer_v2", image_size=16).eval()

    def test_masked_pixels_reach_nothing_that_is_seen(self, net):
        visible = random_mask(2, 4, 0.5)
        images = torch.rand(2, 3, 16, 16)
        hidden = torch.nn.functional.interpolate(1.0 - visible, (16, 16))
        other = images + hidden * torch.rand(2, 3, 16, 16)
        tokens = net.visible_tokens(images, visible)
        assert tokens.shape == (net.T, 2, 32, 8, 1)
        assert torch.equal(net.visible_tokens(other, visible), tokens)
        assert not torch.equal(net.visible_tokens(images.flip(-1), visible), tokens)

    def test_tokens_are_those_of_the_whole_network_where_all_is_seen(self, net):
        images = torch.rand(2, 3, 16, 16)
        tokens = net.visible_tokens(images, torch.ones(2, 1, 4, 4))
        torch.testing.assert_close(net.head(tokens.mean((-2, -1))), net(images))

    def test_it_learns_a_batch_and_trains_the_encoder_but_not_its_head(self, net):
        torch.manual_seed(0)
        images = torch.nn.functional.interpolate(torch.rand(8, 3, 4, 4), (16, 16), mode="bilinear")
        masked = MaskedAutoencoder(net.train())
        optimizer = torch.optim.AdamW(masked.parameters(), lr=5e-3)
        losses = []
        for step in range(40):
            loss = masked(images, torch.Generator().manual_seed(step % 2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]
        without = [name for name, p in masked.named_parameters() if p.grad is None]
        assert without == ["encoder.head.weight", "encoder.head.bias"]

    def test_masks_and_sizes_are_checked(self, net):
        assert random_mask(3, 4, 0.75, torch.Generator().manual_seed(0)).sum() == 12
        with pytest.raises(ValueError, match="leaves 0 visible"):
            random_mask(1, 2, 0.9)
        with pytest.raises(ValueError, match="images of side 16"):
            MaskedAutoencoder(net)(torch.rand(1, 3, 32, 32))
