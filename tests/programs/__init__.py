"""Whole programs as users write them, run as tests."""
