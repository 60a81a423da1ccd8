"""``spikingjelly.configure``: settings that published code reads; none has an effect here."""

from __future__ import annotations

__all__ = [
    "cuda_compiler_backend",
    "cuda_compiler_options",
    "cuda_threads",
    "max_threads_number_for_datasets_preprocess",
    "save_bool_spike_level",
    "save_datasets_compressed",
    "save_spike_as_bool_in_neuron_kernel",
]

max_threads_number_for_datasets_preprocess = 16
cuda_threads = 512
cuda_compiler_options = ("-use_fast_math",)
cuda_compiler_backend = "nvrtc"
save_datasets_compressed = True
save_spike_as_bool_in_neuron_kernel = False
save_bool_spike_level = 0
