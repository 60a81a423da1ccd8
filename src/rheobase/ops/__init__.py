"""Kernels: every op has a reference to read and fast backends that agree with it."""
