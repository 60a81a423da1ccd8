from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Subset

import rheobase.data
from rheobase import cli, commands
from rheobase.ops.conformance import Row
from rheobase.verify import VerifyReport, verify_many


def set_command(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    command = commands.Command("does what the test says", "rheobase test", lambda parser: None, run)
    monkeypatch.setitem(commands.COMMANDS, "test", command)


def raising(error: BaseException) -> Any:
    def run(options: Any) -> int:
        raise error

    return run


@pytest.mark.parametrize("name", list(commands.COMMANDS))
def test_help_of_every_command_has_its_example(name, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([name, "--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert commands.COMMANDS[name].example in out
    assert f"usage: rheobase {name}" in out


@pytest.mark.parametrize("name", list(commands.COMMANDS))
def test_every_example_parses(name):
    words = commands.COMMANDS[name].example.split()[1:]
    assert cli._parser().parse_args(words).command == name


def test_help_lists_every_command_without_importing_torch():
    code = (
        "import sys\n"
        "from rheobase.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as exit:\n    assert exit.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in commands.COMMANDS:
        assert f"\n    {name} " in done.stdout


def test_version(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"rheobase {rheobase.__version__}\n"


def test_unknown_command_offers_the_nearest(capsys):
    assert cli.main(["modls"]) == 2
    assert capsys.readouterr().err == "rheobase: unknown command 'modls'; did you mean 'models'?\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("tau must be\n  at least 1"), "tau must be at least 1"),
        (TypeError("takes floats"), "takes floats"),
        (KeyError("no such key"), "no such key"),
        (RuntimeError(), "RuntimeError"),
        (
            FileNotFoundError(2, "No such file or directory", "a.yaml"),
            "a.yaml: No such file or directory",
        ),
    ],
)
def test_an_error_is_one_line_and_exit_status_2(error, line, monkeypatch, capsys):
    set_command(monkeypatch, raising(error))
    assert cli.main(["test"]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"rheobase: {line}\n"
    assert captured.out == ""


@pytest.mark.parametrize("words", [["test", "--traceback"], ["--traceback", "test"]])
def test_traceback_on_request(words, monkeypatch):
    set_command(monkeypatch, raising(ValueError("tau")))
    with pytest.raises(ValueError, match="tau"):
        cli.main(words)


def test_a_bug_keeps_its_traceback(monkeypatch):
    set_command(monkeypatch, raising(AttributeError("a slip of ours")))
    with pytest.raises(AttributeError):
        cli.main(["test"])


def test_interrupt_is_exit_status_130(monkeypatch, capsys):
    set_command(monkeypatch, raising(KeyboardInterrupt("stopped at step 3")))
    assert cli.main(["test"]) == 130
    assert capsys.readouterr().err == "rheobase: stopped at step 3\n"


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m rheobase.cli catalog --json | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[\n", "")


def test_models_prints_published_parameter_counts(capsys):
    assert cli.main(["models", "spikformer_8_768"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["spikformer_8_768", "66,338,632"]


def test_models_offers_the_nearest_for_a_pattern_without_match(capsys):
    assert cli.main(["models", "spikformer_8_769"]) == 2
    assert "did you mean 'spikformer_8_768'" in capsys.readouterr().err


def test_catalog_json_has_the_agreed_keys(capsys):
    assert cli.main(["catalog", "--json", "--group", "surrogates"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 9
    keys = ["id", "name", "group", "status", "paper", "entry", "evidence"]
    assert all(list(row) == keys for row in rows)


def test_catalog_table_filters_and_counts(capsys):
    assert cli.main(["catalog", "--group", "hardware", "--status", "open"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["status", "group", "id"]
    assert all(line.split()[:2] == ["open", "hardware"] for line in lines[1:-1])
    assert lines[-1] == f"{len(lines) - 2} systems: 0 works, 0 partial, {len(lines) - 2} open"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["catalog", "--group", "neuron"], "unknown group 'neuron'; did you mean 'neurons'?"),
        (["catalog", "--status", "work"], "unknown status 'work'; did you mean 'works'?"),
        (["data", "get", "mnits"], "did you mean 'mnist'?"),
        (["train", "none.yaml"], "none.yaml: No such file or directory"),
        (["eval", "no_such_run"], "no_such_run is neither a run folder"),
        (["verify", "none.npz"], "none.npz"),
    ],
)
def test_bad_input_names_what_was_given(words, message, capsys):
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_data_list_names_the_embedded_sample(capsys):
    assert cli.main(["data", "list"]) == 0
    assert "mnist_sample" in capsys.readouterr().out


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rheobase.data.get_dataset

    def first(name: str, **options: Any) -> Subset[Any]:
        return Subset(whole(name, **options), range(64))

    monkeypatch.setattr(rheobase.data, "get_dataset", first)


def test_train_then_eval(few_images, tmp_path: Path, capsys):
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "epochs: 1\n"
        "model: {name: spikformer_mnist_2_64, overrides: {depth: 1, dim: 8, heads: 1, T: 1}}\n"
        "data: {name: mnist_sample, batch_size: 32}\n"
    )
    run = tmp_path / "run"
    assert cli.main(["train", str(config), f"run={run}", "seed=1"]) == 0
    assert f"in {run}" in capsys.readouterr().out
    assert cli.main(["eval", str(run)]) == 0
    values = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert 0.0 <= float(values["accuracy"]) <= 1.0
    assert float(values["samples"]) == 64


def test_train_refuses_an_unknown_key(tmp_path: Path, capsys):
    config = tmp_path / "typo.yaml"
    config.write_text("epoch: 1\n")
    assert cli.main(["train", str(config)]) == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err


def test_demo_hands_on_its_options_and_tells_where_the_report_is(monkeypatch, tmp_path, capsys):
    given = {}

    def run_demo(**options: Any) -> Path:
        given.update(options)
        return tmp_path / "report.html"

    monkeypatch.setattr("rheobase.experiments.demo.run_demo", run_demo)
    assert cli.main(["demo", "--folder", str(tmp_path), "--seed", "3", "--quick"]) == 0
    assert given == {"folder": str(tmp_path), "seed": 3, "quick": True}
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"


@pytest.mark.parametrize(("second", "status"), [("ok", 0), ("failed", 1), ("not built", 1)])
def test_verify_succeeds_only_if_all_hold(second, status, monkeypatch, capsys):
    reports = [VerifyReport("a", "spikformer", "ok"), VerifyReport("b", "spikformer", second)]
    monkeypatch.setattr("rheobase.verify.verify_many", lambda files: reports)
    assert cli.main(["verify", "a.npz", "b.npz"]) == status
    assert second in capsys.readouterr().out


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_selftest_fails_with_any_kernel(ok, status, monkeypatch, capsys):
    row = Row("cpu", "leak/above/hard/attached/ATan", "float32", "number", 0, 1e-7, ok)
    monkeypatch.setattr("rheobase.ops.conformance.run", lambda *level: iter([row]))
    assert cli.main(["selftest"]) == status
    out = capsys.readouterr().out
    assert out.startswith("ok" if ok else "NO")
    assert out.endswith(f"1 kernels held to the reference, {1 - ok} differ from it\n")


def test_verify_takes_a_folder(tmp_path, monkeypatch):
    for name in ("b.npz", "a.npz", "notes.md"):
        (tmp_path / name).touch()
    seen = []
    monkeypatch.setattr("rheobase.verify.verify", seen.append)
    verify_many([tmp_path, "c.npz"])
    assert seen == [tmp_path / "a.npz", tmp_path / "b.npz", "c.npz"]


def test_goldens_that_are_named_as_examples_are_there():
    root = Path(__file__).parents[2]
    named = (root / "README.md").read_text() + commands.COMMANDS["verify"].example
    files = re.findall(r"rheobase verify ([\w*]+/[\w/*]+\.npz)", named)
    assert len(files) == 2
    assert all(list(root.glob(file)) for file in files)
