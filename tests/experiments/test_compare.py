import json

import pytest
import torch
from torch.utils.data import TensorDataset

from rheobase.experiments import compare as module
from rheobase.experiments import kept_runs
from rheobase.experiments.compare import Comparison, _student, compare, mechanism_table, table
from rheobase.experiments.mechanisms import Mechanism
from rheobase.experiments.pairs import Pair
from rheobase.train import evaluate

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
    train = kept_runs.train

    def count(cfg):
        runs.append(cfg)
        return train(cfg)

    monkeypatch.setattr(kept_runs, "train", count)
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


def test_a_mechanism_is_measured_on_the_networks_that_were_trained(tmp_path, trained, monkeypatch):
    seen = []

    def count(found):
        seen.append(found)
        return float(len(seen))

    rule = ("loss.name=cross_entropy",)
    pairs = {"a": Pair("a above b", rule, mechanism=Mechanism("calls", count, lower=True))}
    monkeypatch.setattr(module, "PAIRS", pairs)

    def again(seeds):
        return compare(configs=tmp_path, folder=tmp_path / "out", seeds=seeds, report=str)[0]

    row = again(2)
    assert (row.measured, row.measured_baseline) == ([1.0, 3.0], [2.0, 4.0])
    for found, accuracy in zip(seen[::2], row.accuracy, strict=True):
        assert found.accuracies == [accuracy]
        data = TensorDataset(found.images, found.labels)
        assert evaluate(found.net, data).accuracy == accuracy
        assert not found.net.training
    written = (tmp_path / "out/mechanisms.md").read_text()
    assert written == mechanism_table([row])
    assert written.splitlines()[2].endswith("| -1.0000 | -1.0000 to -1.0000 | better |")
    steps = [len((run / "steps.csv").read_text()) for run in (tmp_path / "out").glob("*/")]
    # The second time nothing is trained: the networks are those of the runs.
    assert again(2).accuracy == row.accuracy
    assert steps == [len((run / "steps.csv").read_text()) for run in (tmp_path / "out").glob("*/")]
    assert torch.equal(seen[4].net(seen[4].images[:9]), seen[0].net(seen[0].images[:9]))


@pytest.mark.parametrize(("lower", "verdict"), [(True, "worse"), (False, "better")])
def test_a_paper_may_want_less(monkeypatch, lower, verdict):
    pair = Pair("", (), mechanism=Mechanism("spikes", len, lower))
    monkeypatch.setattr(module, "PAIRS", {"m": pair})
    row = Comparison("m", "", [0, 1, 2], [0.5] * 3, [0.5] * 3, [0.6, 0.61, 0.62], [0.5] * 3)
    assert mechanism_table([row]).splitlines()[2].endswith(f"{verdict} |")
    untold = Comparison("m", "", [0], [0.5], [0.5], [0.6], [0.5])
    assert mechanism_table([untold]).splitlines()[2].endswith("undecided |")
    assert mechanism_table([Comparison("m", "", [0], [0.5], [0.5])]) == ""


def test_a_gain_counts_if_its_95_percent_interval_leaves_out_0():
    def row(accuracy, baseline):
        return Comparison("m", "", list(range(len(accuracy))), accuracy, baseline)

    assert row([0.6], [0.5]).verdict == "undecided"  # a single run shows nothing
    clear = row([0.60, 0.61, 0.62], [0.5] * 3)
    # 0.11 less and more 4.3027 times 0.01 / sqrt(3)
    assert clear.interval == pytest.approx((0.08516, 0.13484), abs=1e-5)
    assert clear.verdict == "better"
    assert row([0.5] * 3, [0.60, 0.61, 0.62]).verdict == "worse"
    # Above one standard error, but not told from chance by three seeds.
    assert row([0.51, 0.53, 0.52], [0.50, 0.50, 0.52]).verdict == "undecided"
    # What both runs of a seed have in common is no spread of the gain.
    assert row([0.410, 0.712, 0.931], [0.40, 0.70, 0.92]).verdict == "better"


@pytest.mark.parametrize(("degrees", "point"), [(1, 12.7062), (19, 2.0930), (20, 2.0860),
                                                (30, 2.0423), (100, 1.9840)])  # fmt: skip
def test_points_of_students_t(degrees, point):
    assert _student(degrees) == pytest.approx(point, abs=1e-3)


def test_what_there_is_not_is_named(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'tet'"):
        compare(["ttet"], folder=tmp_path)
    with pytest.raises(ValueError, match="seeds=0"):
        compare(["tet"], folder=tmp_path, seeds=0)
    with pytest.raises(FileNotFoundError):
        compare(["tet"], configs=tmp_path, folder=tmp_path)
