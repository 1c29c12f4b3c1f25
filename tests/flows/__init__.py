"""Whole-system tests: real worker processes, a ledger as witness, every shared store."""
