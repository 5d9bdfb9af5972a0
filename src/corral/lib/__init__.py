"""Row 0: the standard library and nothing of corral."""
