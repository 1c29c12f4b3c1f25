"""What tests, examples and benchmarks share, and no user ever installs."""
