"""The Triton kernels without a GPU: interpreted against the reference, and compiled to PTX.

Both run this file as a script: whether Triton interprets is settled when it makes a kernel.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from rheobase.ops.conformance import RUNAWAY, TYPICAL
from rheobase.ops.scan import ScanSpec, scan, scan_reference, use_backend
from rheobase.ops.scan.tables import CHARGES, RESETS
from rheobase.surrogate import Surrogate, surrogates

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@needs_triton
@pytest.mark.parametrize(
    "name",
    [
        "interpret",
        "interpret_norms",
        "interpret_bits",
        "interpret_pool",
        "interpret_steps",
        "compile_neurons",
        "compile_steps",
        "compile_others",
    ],
)
def test_without_gpu(name: str, tmp_path: Path) -> None:
    run_script(name, tmp_path)


@needs_triton
@pytest.mark.long
def test_every_surrogate_compiles(tmp_path: Path) -> None:
    run_script("compile_surrogates", tmp_path)


@needs_triton
def test_tensor_on_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton import knobs

    monkeypatch.setattr(knobs.runtime, "interpret", False)
    with use_backend("triton"), pytest.raises(ValueError, match="GPU tensors, got one on cpu"):
        scan(torch.ones(2, 3), 0.0, LIF, coefficients(LIF, "number"))


def run_script(name: str, cache: Path) -> None:
    environment = {
        **os.environ,
        "RHEOBASE_CACHE": str(cache),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TRITON_INTERPRET": str(int(name.startswith("interpret"))),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# What is checked.

LIF = ScanSpec("blend", "at_or_above", "hard", "ATan", detach_reset=True)
DIVIDES = ScanSpec("relax", "ratio_above", "soft", "Sigmoid")
AFFINE = ScanSpec("affine", "above", "soft", "Sigmoid")
CUBA = ScanSpec("leak", "above", "hard", "ATan", filtered=True)

ONE_SIDE = ("at_or_above", "above")
BOTH_SIDES = ("both_at_or_beyond", "both_beyond")

# Part of a block of columns, and a whole block followed by a part.
STEPS, NARROW, SHAPE = 3, (2, 3, 40), (2, 3, 100)
LAYOUTS: dict[str, tuple[int, ...]] = {
    "scalar": (), "channel": (3, 1), "plane": (3, 1, 1), "full": SHAPE, "step": (STEPS, 1, 1, 1)
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    name: str
    spec: ScanSpec
    x: Tensor
    coefficients: dict[str, float | Tensor]
    u: float | Tensor = -0.1
    tap: Literal["h", "v"] | None = None


def cases() -> Iterator[Case]:
    pairs = [(charge, "hard") for charge in CHARGES]
    pairs += [(charge, "soft") for charge in CHARGES if charge not in RUNAWAY]
    pairs += [("affine", reset) for reset in RESETS if reset not in ("hard", "soft")]
    fires = {name: BOTH_SIDES if reset.two_sided else ONE_SIDE for name, reset in RESETS.items()}
    kinds = [
        (charge, reset, detach, fire)
        for charge, reset in pairs
        for detach, fire in itertools.product((False, True), fires[reset])
    ]
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    slopes = ("ATan", "Sigmoid", "Rectangular", "Triangular", "FastSigmoid")
    layouts = ("number", "scalar", "channel", "step")
    taps: tuple[Literal["h", "v"] | None, ...] = (None, "h", "v")
    for i, (charge, reset, detach, fire) in enumerate(kinds):
        spec = ScanSpec(charge, fire, reset, slopes[i % 5], detach)
        x = draw(STEPS, *NARROW, dtype=dtypes[i % 3])
        layout, tap = layouts[i % 4], taps[i // 3 % 3]
        yield Case(layout, spec, x, coefficients(spec, layout), tap=tap)
    x = draw(STEPS, *SHAPE)
    repeated = x[:1].expand(STEPS, *SHAPE)
    channels_last = draw(STEPS, 2, 4, 5, 3, dtype=torch.float64).transpose(2, 4)
    all_names = ScanSpec("affine", "count", "soft", EVERY_NAME)
    yield Case("carried u", LIF, x, coefficients(LIF, "scalar"), u=draw(*SHAPE), tap="h")
    yield Case("repeated x", LIF, repeated, coefficients(LIF, "scalar"), tap="v")
    yield Case("vectors of all columns", AFFINE, x, coefficients(AFFINE, "full"))
    yield Case("channels last", AFFINE, channels_last, coefficients(AFFINE, "plane"), tap="v")
    in_time = coefficients(AFFINE, "number") | {"gain": draw(STEPS, 1, 1, 1).requires_grad_()}
    yield Case("gain of each step", AFFINE, x, in_time)
    yield Case("divisions", DIVIDES, x, coefficients(DIVIDES, "channel"))
    many, uneven = draw(40, *NARROW), draw(37, *NARROW)  # in whole segments, and with a rest
    yield Case("many steps", LIF, many, coefficients(LIF, "channel"), tap="h")
    yield Case("many steps, no marks", LIF, many.half(), coefficients(LIF, "channel"), tap="h")
    yield Case("uneven steps", AFFINE, uneven, coefficients(AFFINE, "scalar"), tap="v")
    yield Case("uneven steps, no marks", LIF, uneven.half(), coefficients(LIF, "scalar"))
    in_time = coefficients(AFFINE, "number") | {"gain": draw(37, 1, 1, 1).requires_grad_()}
    yield Case("uneven steps", AFFINE, uneven, in_time)
    yield Case("synapse", CUBA, x, coefficients(CUBA, "channel"), tap="v")
    yield Case("synapse", CUBA, x, coefficients(CUBA, "number"), u=draw(2, *SHAPE))
    behind = replace(CUBA, charge="affine", normed=True)
    decay = draw(40, 2, 1, 1).sigmoid().requires_grad_()
    decays = coefficients(behind, "scalar") | {"current_decay": decay}
    yield Case("many steps", behind, many, decays, tap="h")
    yield Case("uneven steps", CUBA, uneven, coefficients(CUBA, "channel"))
    long = draw(96, *NARROW)  # chunks of it side by side
    yield Case("in chunks", LIF, long, coefficients(LIF, "channel"), tap="v")
    yield Case("in chunks", CUBA, long, coefficients(CUBA, "channel"), u=draw(2, *NARROW))
    soft = replace(LIF, reset="soft", surrogate="Sigmoid")
    yield Case("in chunks", soft, long.double(), coefficients(soft, "scalar"), u=0.2)
    wide = draw(STEPS, 10, 3, 700, dtype=torch.float64)  # a program takes several blocks
    yield Case("in turns", AFFINE, wide, coefficients(AFFINE, "channel"))
    yield Case("in turns", behind, wide.float(), coefficients(behind, "scalar"))
    yield Case("all names", all_names, 2.0 * x, coefficients(all_names, "channel"))


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (1.5 * torch.randn(*shape)).to(dtype)


def coefficients(spec: ScanSpec, layout: str) -> dict[str, float | Tensor]:
    values: dict[str, float | Tensor] = {}
    for name in spec.names:
        if name.startswith("surrogate_"):
            defaults = spec.surrogate_functions.defaults
            values[name] = defaults[name.removeprefix("surrogate_")]
        elif layout == "number" or name == "levels":
            values[name] = TYPICAL[name]
        else:
            spread = 1.0 + 0.1 * torch.randn(LAYOUTS[layout]).clamp(-2, 2)
            values[name] = (TYPICAL[name] * spread).requires_grad_()
    return values


EVERY_NAME = "EveryName"


def define_every_name() -> None:
    """A surrogate of the whole language. Defined by a script alone: it enters the registry."""
    from rheobase.ops.lang import (  # noqa: I001
        abs, atan, cos, erf, exp, floor, log, pi, round, sign, sin, tanh, where
    )  # fmt: skip

    class EveryName(Surrogate):
        def __init__(self, a: float = 0.7) -> None:
            super().__init__(a=a)

        @staticmethod
        def derivative(z: Any, a: Any) -> Any:
            bent = atan(z) + tanh(a * z) + tanh(0.1 * z) + erf(z) + sin(z) * cos(a * z)
            stepped = round(z) + round(z - z + 1.5) + round(z - z + 2.5) - floor(z) + sign(z)
            return where(z < a, bent, stepped) + log(1.0 + abs(z)) + exp(-z * z) / pi

    assert EveryName.__name__ == EVERY_NAME


# The kernels interpreted.

# Relative to the largest, or to 1: a sum may cancel. The interpreter truncates to bfloat16.
TOLERANCE = {
    torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2
}  # fmt: skip

Outcome = tuple[list[Tensor], list[Tensor]]
"""Spikes, last membranes and tapped ones; gradients of x and of the coefficients."""


def interpret() -> None:
    from rheobase.ops.scan import in_chunks, triton

    torch.manual_seed(0)
    define_every_name()
    settled: list[bool] = []
    for name in ("_forward_in_chunks", "_backward_in_chunks"):
        monitor(triton, name, settled)
    failed = 0
    print("values that differ; worst gradient in units of the tolerance; case")
    for case in cases():
        triton._ENOUGH_PROGRAMS = 1 if case.name == "in turns" else 1024
        in_chunks._LEAST_STEPS, in_chunks._LEAST_LENGTH = 96, 24
        differ, worst = compare(case)
        failed += bool(differ or not worst <= 1.0)
        print(f"{differ:4} {worst:8.4f}  {case.spec.key} {case.x.dtype} {case.tap} {case.name}")
    assert len(settled) == 6 and all(settled)
    sys.exit(failed)


def monitor(module: Any, name: str, given: list[bool]) -> None:
    """Note of every call of a function whether it gave anything."""
    function = getattr(module, name)

    def noted(*arguments: Any) -> Any:
        result = function(*arguments)
        given.append(result is not None)
        return result

    setattr(module, name, noted)


def compare(case: Case) -> tuple[int, float]:
    g, g_tap = torch.randn(case.x.shape).to(case.x.dtype), torch.randn(case.x.shape)
    g_tap = g_tap.to(torch.promote_types(case.x.dtype, torch.float32))
    # The operator gives float16 on a CPU to the reference.
    run = by_hand if case.x.dtype == torch.float16 else by_operator
    values, gradients = run(case, g, g_tap)
    expected, expected_gradients = by_reference(case, g, g_tap)
    # The interpreter's exp is NumPy's, which rounds as it will: membranes may differ by that.
    near = 2e-6 if case.spec.charge == "exponential" else 0.0
    differ = sum(
        int(((a - b).abs() > near * (1.0 + b.abs())).sum())
        for a, b in zip(values, expected, strict=True)
    )
    worst = 0.0
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        error = (a - b).abs().max() / b.abs().max().clamp_min(1.0)
        worst = max(worst, float(error) / TOLERANCE[a.dtype])
    return differ, worst


def by_reference(case: Case, g: Tensor, g_tap: Tensor) -> Outcome:
    x = case.x.detach().requires_grad_()
    spikes, h, v, last = scan_reference(x, case.u, case.spec, case.coefficients)
    return differentiate(case, x, spikes, last, {"h": h, "v": v, None: None}[case.tap], g, g_tap)


def by_operator(case: Case, g: Tensor, g_tap: Tensor) -> Outcome:
    x = case.x.detach().requires_grad_()
    with use_backend("triton"):
        spikes, last, tapped = scan(x, case.u, case.spec, case.coefficients, case.tap)
        assert "Fused" in type(spikes.grad_fn).__name__
        return differentiate(case, x, spikes, last, tapped, g, g_tap)


def differentiate(
    case: Case, x: Tensor, spikes: Tensor, last: Tensor, tapped: Tensor | None, g: Tensor,
    g_tap: Tensor,
) -> Outcome:  # fmt: skip
    leaves = [x, *(v for v in case.coefficients.values() if isinstance(v, Tensor))]
    if tapped is None:
        return [spikes, last], list(torch.autograd.grad(spikes, leaves, g))
    gradients = torch.autograd.grad([spikes, tapped], leaves, [g, g_tap])
    return [spikes, last, tapped], list(gradients)


def by_hand(case: Case, g: Tensor, g_tap: Tensor) -> Outcome:
    from rheobase.ops.scan import triton

    values = [case.coefficients[n] for n in case.spec.names]
    wanted = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
    assert isinstance(case.u, float)
    common = (case.x, None, case.u, case.spec, values, case.tap or "")
    spikes, last, tapped, _ = triton.forward(*common, True)
    gradients = triton.backward(g, g_tap, *common, wanted)
    return [spikes, last, tapped] if case.tap else [spikes, last], gradients


def interpret_norms() -> None:
    """Statistics and gradients of batch norm, as in `rheobase.ops.batch_norm`, by autograd's."""
    torch.manual_seed(0)
    for x in norm_inputs():
        channels = x.shape[2]
        weight, bias = draw(channels, dtype=torch.float64), draw(channels, dtype=torch.float64)
        g = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(draw(*x.shape))
        leaves = [v.detach().double().requires_grad_() for v in (x, weight, bias)]
        y = by_channel(torch.nn.functional.batch_norm, leaves)
        expected = torch.autograd.grad(y, leaves, g.double())
        outputs, gradients = by_kernels(x, weight, bias, g)
        tolerance = TOLERANCE[x.dtype]
        torch.testing.assert_close(outputs, y.detach(), rtol=tolerance, atol=10 * tolerance)
        for a, b in zip(gradients, expected, strict=True):
            assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1.0)


def norm_inputs() -> Iterator[Tensor]:
    """Channels first, last and only, images of every step and one, with a mean far from 0."""
    for dtype in (torch.float64, torch.float32):
        yield 30.0 + draw(2, 3, 5, 7, 7, dtype=dtype)
        yield 30.0 + draw(1, 3, 70, 4, 5, dtype=dtype)
        yield draw(3, 5, 6, 7, 70, dtype=dtype).movedim(-1, 2)
        yield draw(3, 5, 9, dtype=dtype)
        yield draw(4, 3, 300, 11, dtype=dtype)[1:]  # dense rows of a longer sequence
    yield 3.0 + draw(2, 3, 5, 20, 30, dtype=torch.bfloat16)


def by_channel(norm: Any, leaves: list[Tensor]) -> Tensor:
    x, weight, bias = leaves
    return norm(x.flatten(0, 1), None, None, weight, bias, True, 0.1, 1e-5).view(x.shape)


def by_kernels(x: Tensor, weight: Tensor, bias: Tensor, g: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The norm's output and gradients, from gain and shift."""
    from rheobase.ops import batch_norm_triton as kernels

    place = x.shape[2], max(1, x.stride(2))
    wide = [-1, *[1] * (x.dim() - 3)]
    mean, _, inverse, gain, shift = kernels.statistics(x, weight, bias, 1e-5, *place)
    y = x.double() * gain.double().view(wide) + shift.double().view(wide)
    others = [axis for axis in range(x.dim()) if axis != 2]
    g_gain, g_shift = (g.double() * x.double()).sum(others), g.double().sum(others)
    slope, offset, g_weight, g_bias = kernels.gradients(x, g_gain, g_shift, weight, mean, inverse)
    gx = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).copy_(g * gain.view(wide))
    kernels.add_affine_(gx, x, slope, offset, *place)
    return y, [gx.double(), g_weight, g_bias]


def interpret_bits() -> None:
    from rheobase.ops import packed_triton

    for dtype, count in itertools.product((torch.float32, torch.bfloat16), (1, 8, 2049, 20005)):
        spikes = (torch.rand(count) < 0.3).to(dtype)
        packed = packed_triton.pack(spikes)
        assert packed.numel() == -(-count // 8)
        back = torch.full_like(spikes, 7.0)
        packed_triton.unpack(packed, back)
        assert torch.equal(back, spikes)


def interpret_pool() -> None:
    """The maximum of each window, the minimum where the weight is negative, and its gradient."""
    from rheobase.ops import pool_triton

    torch.manual_seed(0)
    for (kernel, stride, padding), dtype, last in itertools.product(
        ((3, 2, 1), (2, 2, 0), (3, 1, 1)), (torch.float64, torch.bfloat16), (False, True)
    ):
        order = torch.channels_last if last else torch.contiguous_format
        x = draw(2, 5, 9, 8, dtype=dtype).contiguous(memory_format=order).requires_grad_()
        weight = torch.tensor([1.0, -1.0, 0.0, -0.5, 2.0])
        signs = torch.where(weight < 0, -1.0, 1.0).view(-1, 1, 1).to(dtype)
        expected = torch.nn.functional.max_pool2d(x * signs, kernel, stride, padding) * signs
        out, place = pool_triton.choose(x.detach(), weight, kernel, stride, padding)
        assert torch.equal(out, expected)
        assert out.stride() == expected.contiguous(memory_format=order).stride()
        g = torch.randn_like(out)
        gx = pool_triton.spread(g, place, x.detach(), kernel, stride, padding)
        (by_torch,) = torch.autograd.grad(expected, x, g)  # it adds up in bfloat16
        error = (gx - by_torch).abs().max() / by_torch.abs().max()
        assert error <= (1e-12 if dtype == torch.float64 else 1e-2)


def interpret_steps() -> None:
    """Kernels made of a neuron's step, against the same step unrolled by autograd."""
    give_steps_to_triton()
    for dtype in (torch.float64, torch.float32):
        for neuron, x in stepped(dtype):
            compare_steps(neuron, x.requires_grad_())


def give_steps_to_triton() -> None:
    from rheobase.ops.steps import op, triton

    op._kernels = lambda device: triton


def stepped(dtype: torch.dtype) -> Iterator[tuple[Any, Tensor]]:
    """Neurons and what they run on: a few segments of steps, part of a block and more than one."""
    from test_steps import CASES

    for i, (neuron, scale) in enumerate(CASES):
        x = scale * (0.7 + draw(19, 2, 3, (40, 100)[i % 2], dtype=dtype))
        yield neuron, x.transpose(2, 3).contiguous().transpose(2, 3) if i % 3 == 0 else x


def compare_steps(neuron: Any, x: Tensor) -> None:
    from rheobase.ops.steps import run_steps, trace_step

    program = trace_step(neuron.step, neuron.states, x.dtype)
    first = torch.stack(neuron.start(x[0].detach())).requires_grad_()
    tap: Any = ("", "h", "v")[neuron.states % 3]
    found = run_steps(program, x, first, tap)
    carried = first if neuron.states > 1 else first[0]
    expected = neuron._unrolled(x, carried, tap or None)
    name = f"{type(neuron).__name__} {x.dtype}"
    assert expected[0].mean().abs() > 0.0, name
    differ = (found[0] != expected[0]).double().mean()
    # exp is NumPy's, which is not PyTorch's; a column that once fires elsewhere stays apart.
    assert differ == 0.0 or (program.takes_exp and differ < 2e-3), (name, differ)
    if differ > 0.0:
        return
    outputs, others = list(filter(is_there, found)), list(filter(is_there, expected))
    g = [torch.randn_like(value) for value in outputs]
    gradients = torch.autograd.grad(outputs, [x, first], g)
    g = [a.view_as(b) for a, b in zip(g, others, strict=True)]
    outputs += gradients
    others += torch.autograd.grad(others, [x, first], g)
    tolerance = 1e-10 if x.dtype == torch.float64 else 2e-3
    for a, b in zip(outputs, others, strict=True):
        # Infinite are the steps since a spike that never was.
        largest = b.detach().nan_to_num(posinf=0.0).abs().max().clamp_min(1.0)
        torch.testing.assert_close(a.view_as(b), b, rtol=0.0, atol=float(tolerance * largest))


def is_there(value: Tensor | None) -> bool:
    return value is not None


# The kernels compiled, each by calling the backend where a launch only compiles.


class CompileOnly:
    """What Triton asks of a GPU's driver in order to compile for it, and the PTX of each launch."""

    def __init__(self, capability: int) -> None:
        from triton.runtime import JITFunction, driver

        from rheobase.ops import triton_launch

        self.capability = capability
        self.fusion: bool | None = None  # None: as the backend says
        self.ptx: list[str] = []
        driver.set_active(self)
        JITFunction.__getitem__ = lambda kernel, grid: (
            lambda *p, **a: self.launch(kernel, grid, p, a)
        )
        triton_launch._check_device = lambda x: None

    def launch(
        self, kernel: Any, grid: tuple[int, ...], places: Any, arguments: dict[str, Any]
    ) -> None:
        if self.fusion is not None:
            arguments["enable_fp_fusion"] = self.fusion
        compiled = kernel.warmup(*places, grid=grid, **arguments)
        assert compiled.asm["cubin"]
        self.ptx.append(compiled.asm["ptx"])

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def neuron(self, spec: ScanSpec, dtype: torch.dtype, layout: str) -> tuple[str, str]:
        """The PTX of a neuron's forward and backward pass."""
        by_hand(Case("", spec, torch.zeros(STEPS, *SHAPE, dtype=dtype), coefficients(spec, layout)),
                torch.zeros(STEPS, *SHAPE, dtype=dtype), torch.zeros(0))  # fmt: skip
        return self.ptx[-2], self.ptx[-1]


def compile_neurons() -> None:
    for capability in (80, 90):
        gpu = CompileOnly(capability)
        for dtype in (torch.float32, torch.bfloat16):
            for ptx in gpu.neuron(LIF, dtype, "number"):
                assert f".target sm_{capability}" in ptx and "fma." not in ptx
    forward, _ = gpu.neuron(DIVIDES, torch.float32, "step")
    assert "div.rn.f32" in forward and "div.full.f32" not in forward
    assert "fma." not in gpu.neuron(AFFINE, torch.float16, "channel")[0]
    gpu.fusion = True
    assert "fma." in gpu.neuron(AFFINE, torch.float16, "scalar")[0]


def compile_steps() -> None:
    from rheobase.ops.steps import run_steps, trace_step

    give_steps_to_triton()
    for capability, dtype, count in ((80, torch.float64, 3), (90, torch.float32, 20)):
        gpu = CompileOnly(capability)
        for neuron, x in itertools.islice(stepped(dtype), count):
            program = trace_step(neuron.step, neuron.states, dtype)
            x.requires_grad_()
            spikes, membranes, _ = run_steps(program, x, torch.stack(neuron.start(x[0])), "h")
            (spikes + membranes).sum().backward()
        assert len(gpu.ptx) == 2 * count
        assert all(f".target sm_{capability}" in ptx for ptx in gpu.ptx)
    assert "fma." not in gpu.ptx[2 * 9]  # of SignedIF, which takes no exp


def compile_others() -> None:
    from rheobase.ops import packed_triton, pool_triton

    for capability in (80, 90):
        gpu = CompileOnly(capability)
        for x in norm_inputs():
            by_kernels(x, torch.ones(x.shape[2]), torch.zeros(x.shape[2]), x)
        packed_triton.unpack(packed_triton.pack(x.flatten()), x.flatten())
        images = x.flatten(0, 1)
        for image in (images, images.contiguous(memory_format=torch.channels_last)):
            out, place = pool_triton.choose(image, torch.ones(x.shape[2]), 3, 2, 1)
            pool_triton.spread(out, place, image, 3, 2, 1)
        assert len(gpu.ptx) > 40 and all(f".target sm_{capability}" in ptx for ptx in gpu.ptx)


def compile_surrogates() -> None:
    define_every_name()
    gpu = CompileOnly(90)
    for row in surrogates():
        print(row.name)
        for dtype in (torch.float32, torch.float64):
            gpu.neuron(ScanSpec("leak", "above", "hard", row.name), dtype, "number")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
