"""Holdfast in the frameworks of others; each file imports its own, and nothing imports the files but users."""
