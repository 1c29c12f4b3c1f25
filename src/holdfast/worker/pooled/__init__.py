"""A pool from inside: jobs that live in memory alone, for `holdfast.pool`."""
