"""``rheobase convert`` from the command line to the page."""

from __future__ import annotations

import json

import torch

from rheobase.cli import main
from rheobase.convert import Statistic, convert
from rheobase.models.ann_resnet import CifarResNet, official_weights

NETWORK = """
from torch import nn
def make():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 10),
    )
"""


def test_table_page_and_results(tmp_path, monkeypatch, capsys):
    (tmp_path / "small_ann.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    import small_ann

    torch.manual_seed(0)
    weights = tmp_path / "weights.pt"
    torch.save(small_ann.make().state_dict(), weights)
    words = ["convert", "small_ann:make", "--weights", str(weights), "--data", "mnist_sample"]
    words += ["--recipe", "qcfs", "--recipe", "threshold_max", "--T", "2,8", "--test", "20"]
    words += ["--calibration", "20", "--report", str(tmp_path / "out.html")]
    words += ["--results", str(tmp_path / "out.json")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "| recipe | T = 2 | T = 8 |" in out
    assert "qcfs: node" in out and "does not convert" in out
    page = (tmp_path / "out.html").read_text()
    assert page.count("<svg") == 1 and "time steps T" in page, "accuracy against T as a picture"
    assert "RateIF" in page and "What the layers with weights are given" in page
    assert "of 20 test images" in page and "most is lost in" in page
    assert "Every layer of threshold_max at T = 8" in page, "the first that fits the network"
    assert "qcfs: node" in page, "why there are no figures"
    assert set(json.loads((tmp_path / "out.json").read_text())) == {"threshold_max", "qcfs"}
    assert main([*words[:1], "small_ann", *words[2:]]) == 2
    assert "expected package.module:function" in capsys.readouterr().err
    assert main([*words[:1], "small_ann:mak", *words[2:]]) == 2
    assert "small_ann has nothing of the name 'mak'" in capsys.readouterr().err
    torch.save({"other": torch.ones(3)}, tmp_path / "other.pt")
    for option, wrong, message in (
        ("--weights", str(tmp_path / "other.pt"), "does not hold the weights of small_ann:make"),
        ("--T", "2.5", "--T takes whole numbers of at least 1"),
        ("--T", "0,4", "--T takes whole numbers of at least 1"),
        ("--test", "0", "--calibration and --test are at least 1"),
        (
            "--mean",
            "0.1,0.2",
            "--mean and --std take one number, or one for each of the 1 channels",
        ),
        ("--std", "0", "no deviation of 0"),
        ("--recipe", "qfcs", "unknown recipe 'qfcs'; did you mean 'qcfs'"),
    ):
        assert main([*words, option, wrong]) == 2
        assert message in capsys.readouterr().err


def test_what_conversion_warns_of_is_shown(tmp_path, monkeypatch, capsys):
    dead = (
        NETWORK.replace("    return", "    net =")
        + "    net[0].bias.data.fill_(-9.0)\n    return net\n"
    )
    (tmp_path / "dead_ann.py").write_text(dead)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["convert", "dead_ann:make", "--data", "mnist_sample", "--test", "20", "--T", "2"]
    words += ["--calibration", "20", "--recipe"]
    assert main([*words, "threshold_max"]) == 0
    assert "threshold_max: '1' (called by PyTorch's own" in capsys.readouterr().out
    assert main([*words, "qcfs"]) == 2, "nothing was converted"
    (tmp_path / "narrow_ann.py").write_text(NETWORK.replace("144", "100"))
    assert main([words[0], "narrow_ann:make", *words[2:], "threshold_max"]) == 2
    error = capsys.readouterr().err
    assert "narrow_ann:make does not take the images of mnist_sample, [N, 1, 28, 28]" in error


def test_training_further_is_the_same_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "small_ann_to_train.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    words = [
        "convert",
        "small_ann_to_train:make",
        "--data",
        "mnist_sample",
        "--recipe",
        "threshold_max",
    ]
    words += ["--T", "4", "--test", "20", "--calibration", "20", "--mean", "0.1", "--std", "0.3"]
    words += ["--train", f"run={tmp_path / 'run'}", "epochs=1", "data.train_images=500"]
    assert main([*words, "optim.lr=5e-3", "data.batch_size=25", "log.progress=never"]) == 0
    out = capsys.readouterr().out
    accuracy = float(out.split("trained further: ")[1].split(" %")[0])
    assert accuracy > 30.0, "the ANN is untrained: what is above a tenth was learned by the spikes"
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "mnist_sample" in saved and "0.1" in saved


def test_a_residual_network_of_the_literature():
    torch.manual_seed(0)
    net = CifarResNet(1)
    assert sum(p.numel() for p in CifarResNet(3).parameters()) == 269_722  # He et al.: 0.27 M
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    net.load_state_dict(official_weights({"state_dict": state}))
    x = torch.rand(8, 3, 16, 16)
    snn = convert(net.eval(), x, T=64, recipe="inference_scale", statistic=Statistic("max"))
    report = snn.report()
    assert report.spikeness["layer2.0.conv1"] == "spikes"
    assert report.spikeness["linear"] == "spikes, averaged"
    assert report.output_error[-1] < 0.1
