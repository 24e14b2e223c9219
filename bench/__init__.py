"""Benchmarks beside the peers, each pair measured in one run: `make bench`. Never part of the tests."""
