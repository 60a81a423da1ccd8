"""Plasticity held to SpikingJelly, Brian2 and NEST.

Takes every ``stdp_*`` and ``brian_STDP_*`` file of ``$RHEOBASE_GOLDENS/direct`` and every
``*stdp*``, ``*STDP*`` file of ``hardware`` (default: ``tests/goldens``). A kind that is not built
is skipped by name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rheobase.learn import PairSTDP, RewardedSTDP, bounded

pytestmark = pytest.mark.golden

ROOT = Path(os.environ.get("RHEOBASE_GOLDENS", Path(__file__).parent / "goldens"))
SPIKINGJELLY = sorted((ROOT / "direct").glob("stdp_*.npz"))
BRIAN = sorted((ROOT / "direct").glob("brian_STDP_*.npz"))
STEPS = sorted(
    f for kind in ("sj_stdp*", "sj_MSTDP*") for f in (ROOT / "hardware").glob(f"{kind}.npz")
)
NEST = sorted((ROOT / "hardware").glob("nest_stdp_*.npz"))

Arrays = dict[str, Tensor]


def load(path: Path) -> tuple[dict[str, Any], Arrays]:
    beside = path.with_suffix(".json")
    facts = json.loads(beside.read_text()) if beside.exists() else {}
    with np.load(path) as file:
        names = [name for name in file.files if file[name].dtype.kind in "fi"]
        arrays = {name: torch.from_numpy(np.asarray(file[name])) for name in names}
        return facts | {n: str(file[n]) for n in file.files if n not in names}, arrays


def of_weight(text: str) -> Callable[[Tensor], Tensor]:
    """``0.5*clamp(w,-1,1)``, ``w`` or ``0.3`` as the files write a function of the weight."""
    known = re.fullmatch(
        r"(?:(?P<a>-?[\d.]+)\*)?(?:clamp\(w,(?P<low>[-\d.]+),(?P<high>[-\d.]+)\)|(?P<w>w))"
        r"|(?P<c>-?[\d.]+)",
        text.replace(" ", ""),
    )
    if known is None:
        pytest.skip(f"not yet read: {text}")
    if known["c"]:
        return lambda w: torch.full_like(w, float(known["c"]))
    a = float(known["a"] or 1.0)
    if known["w"]:
        return lambda w: a * w
    low, high = float(known["low"]), float(known["high"])
    return lambda w: a * w.clamp(low, high)


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    loose = 1e-12 if theirs.dtype == torch.float64 else 1e-6
    torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=loose, atol=loose, msg=what)


@pytest.mark.parametrize("path", SPIKINGJELLY, ids=lambda p: p.stem)
def test_spikingjelly(path: Path) -> None:
    facts, arrays = load(path)
    kind = facts["kind"]
    if kind not in ("STDP", "MSTDP", "MSTDPET"):
        pytest.skip(f"not yet built: {kind}")
    rate = float(re.findall(r"\+= *([\d.e-]+)\*dw", facts["update"])[0])
    stdp = PairSTDP(
        facts["tau_pre"],
        facts["tau_post"],
        of_weight(facts["f_post"]),
        of_weight(facts["f_pre"]),
        decay="linear" if kind == "STDP" else "exponential",
    )
    pre = arrays["s_in"]
    T, N = pre.shape[:2]
    post, reward = arrays["s_out"].reshape(T, N, -1), arrays["reward"].reshape(T, -1)[:, :N]
    weight, traces = arrays["w0"].clone(), stdp.start(pre[0], post[0])
    learner = RewardedSTDP(stdp, weight, facts["tau_trace"])
    for t in range(T):
        if kind == "STDP":
            pairs, traces = stdp.step(traces, pre[t], post[t])
            change = stdp.change(weight, pairs)
        else:
            learner.weight = weight
            change = learner.step(pre[t], post[t], reward[t])
            assert learner.traces is not None
            traces = learner.traces
        close(change, arrays["dw"][t], f"change of step {t}")
        weight += rate * change
        close(weight, arrays["w"][t], f"weight after step {t}")
        close(traces.pre, arrays["trace_pre"][t].reshape(N, -1), f"pre trace {t}")
        close(traces.post, arrays["trace_post"][t].reshape(N, -1), f"post trace {t}")


@pytest.mark.parametrize("path", STEPS, ids=lambda p: p.stem)
def test_spikingjelly_learners(path: Path) -> None:
    """As above, with weights alone: SpikingJelly computes them in single precision."""
    _, arrays = load(path)
    rewarded, eligible = "MSTDP" in path.stem, "MSTDPET" in path.stem
    tau_e = next((float(v) for k, v in arrays.items() if k in ("tau_trace", "tau_e")), None)
    if eligible and tau_e is None:
        pytest.skip("the file does not say the time constant of its eligibility")
    stdp = PairSTDP(
        float(arrays["tau_pre"]),
        float(arrays["tau_post"]),
        decay="exponential" if rewarded else "linear",
    )
    pre, post = arrays["pre"].double(), arrays["post"].double()
    T = pre.shape[0]
    pre, post = pre.reshape(T, -1, pre.shape[-1]), post.reshape(T, -1, post.shape[-1])
    weight = arrays["W0"].double()
    learner = RewardedSTDP(stdp, weight, tau_e)
    traces = stdp.start(pre[0], post[0])
    for t in range(T):
        if rewarded:
            reward = arrays["reward"][t].double().reshape(-1).expand(pre.shape[1])
            change = learner.step(pre[t], post[t], reward)
        else:
            pairs, traces = stdp.step(traces, pre[t], post[t])
            change = stdp.change(weight, pairs)
        weight = weight + float(arrays["lr"]) * change
        torch.testing.assert_close(weight, arrays["W"][t].double(), rtol=2e-6, atol=2e-6)


def events(times: Tensor, sources: Tensor, count: int) -> dict[float, Tensor]:
    """Spikes ``[1, count]`` by the time at which any fires; equal times differ by rounding."""
    found: dict[float, Tensor] = {}
    for time, source in zip(times.tolist(), sources.tolist(), strict=True):
        found.setdefault(round(time, 6), torch.zeros(1, count).double())[0, int(source)] += 1.0
    return found


@pytest.mark.parametrize("path", BRIAN, ids=lambda p: p.stem)
def test_brian(path: Path) -> None:
    facts, arrays = load(path)
    rule = facts.get("rule", "all-to-all")
    stdp = PairSTDP(
        facts["tau_pre_ms"],
        facts["tau_post_ms"],
        bounded(facts["A_plus"]),
        bounded(-facts["A_minus"]),
        order="pre_first",
        nearest="nearest" in rule,
    )
    if "dt_ms" in arrays:
        ours = stdp.window(arrays["dt_ms"])
        torch.testing.assert_close(ours, arrays["dw"], rtol=1e-9, atol=1e-15)
        return
    pres, posts = int(arrays["syn_i"].max()) + 1, int(arrays["syn_j"].max()) + 1
    before = events(arrays["pre_t_ms"], arrays["pre_i"], pres)
    after = events(arrays["post_t_ms"], arrays["post_i"], posts)
    silent_pre, silent_post = torch.zeros(1, pres).double(), torch.zeros(1, posts).double()
    weight = torch.full((posts, pres), float(facts["w0"])).double()
    traces, now = stdp.start(silent_pre, silent_post), 0.0
    synapses = (arrays["syn_j"].long(), arrays["syn_i"].long())
    # Brian2 records before the spikes of the same moment.
    moments = sorted({*before, *after, *(round(t, 6) for t in arrays["w_t_ms"].tolist())})
    seen = {round(t, 6): k for k, t in enumerate(arrays["w_t_ms"].tolist())}
    for moment in moments:
        if moment in seen:
            close(weight[synapses], arrays["w"][:, seen[moment]], f"at {moment} ms")
        pairs, traces = stdp.step(
            traces,
            before.get(moment, silent_pre),
            after.get(moment, silent_post),
            moment - now,
        )
        weight, now = stdp.moved(weight, pairs, 0.0, 1.0), moment
    close(weight[synapses], arrays["w_final"], "at the end")


@pytest.mark.parametrize("path", NEST, ids=lambda p: p.stem)
def test_nest(path: Path) -> None:
    facts, arrays = load(path)
    if "triplet" in path.stem:
        pytest.skip("not yet built: triplets")
    p, delay = json.loads(facts["params"]), float(arrays["delay"])
    top, rate = p["Wmax"], p["lambda"]
    stdp = PairSTDP(
        p["tau_plus"],
        float(arrays["tau_minus"]),
        bounded(rate * top, p["mu_plus"], towards=top),
        bounded(p["alpha"] * rate * top, p["mu_minus"], towards=0.0, away=top),
        order="post_first",
    )
    zeros = torch.zeros(len(arrays["pre_spikes"]), dtype=torch.long)
    before = events(arrays["pre_spikes"], zeros, 1)
    zeros = torch.zeros(len(arrays["post_spikes"]), dtype=torch.long)
    after = events(arrays["post_spikes"] + delay, zeros, 1)  # at the synapse
    weight, silent = torch.full((1, 1), float(p["weight"])).double(), torch.zeros(1, 1).double()
    traces, now, sent = stdp.start(silent, silent), 0.0, []
    for moment in sorted({*before, *after}):
        pre, post = before.get(moment, silent), after.get(moment, silent)
        pairs, traces = stdp.step(traces, pre, post, moment - now)
        weight, now = stdp.moved(weight, pairs, 0.0, top), moment
        if pre.any():
            sent.append(weight.item())
    close(torch.tensor(sent, dtype=torch.float64), arrays["w"], "weights as they are sent")
