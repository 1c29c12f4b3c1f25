"""Benchmarks: `make bench` runs them all; each part is a file."""
