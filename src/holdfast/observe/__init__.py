"""What Holdfast tells about itself: log lines now."""
