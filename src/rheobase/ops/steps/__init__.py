"""A neuron's step, written in PyTorch for one time step, fused over all of them.

`trace` takes down what the step computes and what its gradient does, number by number;
`kernel_source` and `triton_source` write kernels of it; `op` runs them as one node of the graph.
"""

from rheobase.ops.steps.op import run_steps
from rheobase.ops.steps.trace import Program, Untraceable, trace_step

__all__ = ["Program", "Untraceable", "run_steps", "trace_step"]
