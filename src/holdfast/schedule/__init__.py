"""Schedules, as pure values: when they tick, what a tick means, and how they are written down."""
