"""Programs to copy from; they are not part of the package."""
