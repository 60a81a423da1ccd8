import json

import pytest

from rheobase.experiments import compare as module
from rheobase.experiments.compare import Comparison, compare, table
from rheobase.experiments.pairs import Pair

RECIPE = """
device: cpu
epochs: 1
model:
  name: vggsnn
  overrides: {features: 4/2 8/2 8/2 A, channels: 1, image_size: 28, T: 2, norm: none}
data: {name: mnist_sample, batch_size: 500}
loss: {name: tet}
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Two methods with one baseline, and the settings of every run that was trained."""
    pairs = {
        "a": Pair("a above b", ("loss.name=cross_entropy",)),
        "b": Pair("smooth above sharp", ("loss.name=cross_entropy", "loss.label_smoothing=0.0")),
    }
    monkeypatch.setattr(module, "PAIRS", pairs)
    (tmp_path / "a_mnist_small.yaml").write_text(RECIPE)
    (tmp_path / "b_mnist_small.yaml").write_text(RECIPE)
    runs = []
    train = module.train

    def count(cfg):
        runs.append(cfg)
        return train(cfg)

    monkeypatch.setattr(module, "train", count)
    return runs


def test_runs_are_shared_kept_and_written(tmp_path, trained):
    def again(methods, seeds):
        lines = []
        found = compare(
            methods, configs=tmp_path, folder=tmp_path / "out", seeds=seeds, report=lines.append
        )
        return found, lines

    (row,), lines = again(["a"], 1)
    assert len(trained) == 2 and len(lines) == 2
    assert {cfg.loss.name for cfg in trained} == {"tet", "cross_entropy"}
    assert 0.0 <= row.accuracy[0] <= 1.0
    both, _ = again([], 1)
    assert len(trained) == 2  # b's runs are those of a
    assert [r.method for r in both] == ["a", "b"]
    assert both[1].baseline == row.baseline
    written = json.loads((tmp_path / "out/results.json").read_text())
    assert [entry["method"] for entry in written] == ["a", "b"]
    assert (tmp_path / "out/table.md").read_text() == table(both)


def test_a_gain_is_shown_if_it_exceeds_its_error():
    one = Comparison("m", "", [0], [0.6], [0.5])
    assert not one.shown  # a single run shows nothing
    assert Comparison("m", "", [0, 1, 2], [0.60, 0.61, 0.62], [0.5] * 3).shown
    assert not Comparison("m", "", [0, 1, 2], [0.60, 0.50, 0.41], [0.5] * 3).shown
    assert not Comparison("m", "", [0, 1, 2], [0.40, 0.41, 0.42], [0.5] * 3).shown


def test_what_there_is_not_is_named(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'tet'"):
        compare(["ttet"], folder=tmp_path)
    with pytest.raises(ValueError, match="seeds=0"):
        compare(["tet"], folder=tmp_path, seeds=0)
    with pytest.raises(FileNotFoundError):
        compare(["tet"], configs=tmp_path, folder=tmp_path)
