"""The speed and memory of rheobase beside its peers: ``python -m benchmarks``."""
