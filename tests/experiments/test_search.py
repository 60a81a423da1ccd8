"""Architecture searches at the smallest scale: what they score, what they find, what it trains."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from rheobase import cli
from rheobase.experiments import search_autosnn as autosnn
from rheobase.experiments.search import METHODS, Found, Images, batches, load_images, search
from rheobase.experiments.search_autost import search_autost
from rheobase.experiments.search_kept import Kept
from rheobase.experiments.search_snasnet import diversity, random_cell, search_snasnet
from rheobase.experiments.search_supernet import search_supernet
from rheobase.models import create_model
from rheobase.models.autosnn import BLOCKS, PLACES
from rheobase.models.snasnet import read_cell
from rheobase.train import load_config, train


def some_images(count=24, side=8):
    torch.manual_seed(0)
    return Images(torch.rand(count, 1, side, side), torch.arange(count) % 3)


def test_batches_and_splits_hold_every_image_once():
    data = some_images(10)
    first, rest = data.split(0.8)
    assert (len(first), len(rest)) == (8, 2)
    seen = torch.cat([images for images, _ in batches(first, 4)])
    assert sorted(seen.flatten(1).sum(1).tolist()) == sorted(
        first.images.flatten(1).sum(1).tolist()
    )
    assert [len(labels) for _, labels in batches(data, 4)] == [4, 4]


def test_images_are_drawn_from_the_data_set():
    data = load_images("mnist_sample", 30, seed=1)
    assert data.images.shape == (30, 1, 28, 28)
    assert len(set(data.labels.tolist())) > 3
    assert torch.equal(data.labels, load_images("mnist_sample", 30, seed=1).labels)


def test_unknown_search_offers_the_nearest():
    with pytest.raises(ValueError, match=r"'snasnett'.*'snasnet'"):
        search("snasnett")


@pytest.mark.parametrize("feedback", [False, True])
def test_random_cells_lead_from_input_to_output_without_idle_nodes(feedback):
    torch.manual_seed(0)
    cells = [random_cell(feedback) for _ in range(60)]
    assert len(set(cells)) > 30
    backward = 0
    for cell in cells:
        rows = np.array(read_cell(cell))
        assert rows[0, 3]
        assert not ((rows > 0) & (rows.T > 0)).any(), "one direction a pair"
        backward += int((np.tril(rows) > 0).any())
    assert (backward > 10) == feedback


def test_diversity_is_the_log_determinant_of_the_kernel():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.sn = create_model("snasnet_backward_cifar10", width=4, hidden=8).last_act[1]

        def forward(self, x):
            return self.sn(x.flatten(1).expand(2, len(x), -1) * 2.0)

    torch.manual_seed(0)
    images = torch.rand(4, 1, 3, 3)
    net = Fixed()
    kernel = np.zeros((4, 4))
    for spikes in net(images).double().numpy():
        n, rate = spikes.shape[1], spikes.mean(1)
        for i in range(4):
            for j in range(4):
                distance = (spikes[i] != spikes[j]).sum()
                expected = n * (rate[i] * (1 - rate[j]) + rate[j] * (1 - rate[i]))
                kernel[i, j] += (n - 0.5 * distance / (expected + 1e-3)) / 2
    assert diversity(net, images) == pytest.approx(np.linalg.slogdet(kernel)[1])


def test_snasnet_search_keeps_the_best_of_its_cells():
    torch.manual_seed(0)
    lines = []
    found = search_snasnet(
        some_images(), candidates=5, batch=12, repeats=1, width=4, report=lines.append
    )
    assert found.score == max(found.scores) == found.scores[-1]
    assert found.overrides["cell"] in lines[-1]
    with pytest.raises(ValueError, match="fewer than a batch of 64"):
        search_snasnet(some_images(), candidates=1)


def test_autost_search_fits_the_window_and_the_images():
    lines = []
    found = search_autost(some_images(), rounds=3, report=lines.append)
    with torch.device("meta"):
        net = create_model(found.model, **found.overrides)
    assert 1_000_000 <= sum(p.numel() for p in net.parameters()) <= 2_000_000
    config = net.config
    assert (config.image_size, config.channels, config.num_classes) == (8, 1, 3)
    assert f"depth {config.depth}, dim {config.dim}" in lines[-1]
    more = search_autost(some_images(), parameters=(4_000_000, 5_000_000), report=lines.append)
    assert more.score > found.score
    with pytest.raises(ValueError, match="not a multiple of patch_size=4"):
        search_autost(some_images(side=10))


def test_evolution_climbs(monkeypatch):
    """Paths are judged by how many blocks they share with one that nobody told the search."""
    target = ("SRB_k5", "skip", "SCB_k3", "SRB_k3", "SRB_k5")
    asked = []

    def judge(net, data, path):
        asked.append(path)
        return sum(a == b for a, b in zip(path, target, strict=True)) / PLACES, 1000.0

    monkeypatch.setattr(autosnn, "_judge", judge)
    torch.manual_seed(0)
    _, fitness, scores = autosnn.evolve(None, some_images(), 12, 16, -0.08, lambda line: None)
    assert fitness >= 0.8
    assert scores == sorted(scores)
    assert scores[-1] > scores[0]
    assert len(asked) == len(set(asked)) == 12 * 16


def test_spikes_cost_fitness(monkeypatch):
    spikes = dict(zip(BLOCKS, (10.0, 20.0, 40.0, 80.0, 160.0), strict=True))
    monkeypatch.setattr(
        autosnn, "_judge", lambda net, data, path: (0.5, sum(spikes[block] for block in path))
    )
    torch.manual_seed(0)
    best, _, _ = autosnn.evolve(None, some_images(), 12, 16, -0.5, lambda line: None)
    dear, _, _ = autosnn.evolve(None, some_images(), 12, 16, 0.5, lambda line: None)
    assert sum(spikes[b] for b in best) < 200 < 600 < sum(spikes[b] for b in dear)


SEARCHES = {
    "snasnet": partial(search_snasnet, candidates=4, batch=12, repeats=1, width=4),
    "autosnn": partial(autosnn.search_autosnn, epochs=2, rounds=2, pool=4, width=4, T=2, batch=8),
    "supernet": partial(search_supernet, epochs=3, features="8k3 M 16k3", T=2),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_stopped_anywhere_goes_on_to_the_same_result(name, tmp_path):
    data, run = some_images(side=16), SEARCHES[name]

    def stopping(line):
        lines.append(line)
        if len(lines) == stop:
            raise KeyboardInterrupt

    lines, stop = [], 0
    torch.manual_seed(1)
    whole = run(data, report=lines.append)
    for stop in range(1, len(lines) + 1):
        file = tmp_path / f"{stop}"
        lines = []
        with pytest.raises(KeyboardInterrupt):
            torch.manual_seed(1)
            run(data, report=stopping, kept=Kept(file))
        lines, stop = [], 0
        torch.manual_seed(2)  # where the random numbers stood is kept too, once there is a file
        if not file.exists():
            torch.manual_seed(1)
        assert run(data, report=stopping, kept=Kept(file)) == whole


def test_an_unfinished_search_is_told_apart_and_tidied_up(tmp_path):
    file = tmp_path / "found.yaml.unfinished"
    Kept(file, {"seed": 0}).save("cells", scores=[1.0])
    assert Kept(file, {"seed": 0}).of("cells") == {"scores": [1.0]}
    with pytest.raises(ValueError, match=r"stopped, with .*'seed': 0.*or delete the file"):
        Kept(file, {"seed": 1})
    file.unlink()
    search("snasnet", quick=True, report=lambda line: None, kept=file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_what_a_search_finds_trains(method, tmp_path, capsys):
    recipe = tmp_path / "found.yaml"
    assert cli.main(["search", method, "--quick", "--out", str(recipe)]) == 0
    assert f"rheobase train {recipe}" in capsys.readouterr().out
    cfg = load_config(
        recipe, [f"run={tmp_path / 'run'}", "epochs=1", "data.batch_size=8", "device=cpu",
                 "log.progress=never"]
    )  # fmt: skip
    assert cfg.data.name == "mnist_sample"
    assert cfg.loss.name == ("mse" if method == "autosnn" else "cross_entropy")  # its outputs fire
    few = load_images("mnist_sample", 16)
    pairs = list(zip(few.images, few.labels.tolist(), strict=True))
    assert train(cfg, None, pairs, pairs).steps == 2


def test_where_the_recipe_goes_is_seen_to_before_the_search(tmp_path, monkeypatch, capsys):
    asked = []
    found = Found("searched_net_cifar10", {"features": "8k3"}, 0.0)
    monkeypatch.setattr(
        "rheobase.experiments.search.search", lambda *args, **options: asked.append(args) or found
    )
    assert cli.main(["search", "supernet", "--out", str(tmp_path)]) == 2
    assert "--out names a folder" in capsys.readouterr().err
    assert not asked
    recipe = tmp_path / "new" / "found.yaml"
    assert cli.main(["search", "supernet", "--out", str(recipe)]) == 0
    assert load_config(recipe).model.overrides == {"features": "8k3"}
