"""Experiments: declarative end-to-end runs and their reports."""
