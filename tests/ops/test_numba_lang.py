"""What generated CPU kernels ask of the compiler."""

import re

import numpy as np
from numba import njit

from rheobase.ops.numba_lang import interleave


def test_interleave_marks_the_loop_before_it_alone() -> None:
    @njit
    def chain(steps, a):  # type: ignore[no-untyped-def]
        for t in range(steps):
            for j in range(1, a.size):  # cannot be made of vectors, so the mark stays
                a[j] = a[j - 1] / a[j] if a[j] > 2 else a[j] + a[j - 1]
            interleave(3)
            a[0] += np.float32(t)

    values = np.ones(4, np.float32)
    chain(2, values)
    assert values.tolist() == [2.0, 3.0, 1.0, 0.25]
    text = chain.inspect_llvm(chain.signatures[0])
    assert re.findall(r'"llvm.loop.interleave.count", i32 (\d+)', text) == ["3"]
