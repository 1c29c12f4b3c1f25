"""Attempts in slot processes. Nothing is imported here: the codec comes with the first process, not before."""
