"""Looks at a node before trouble does: what it needs so that no outage above it stops work."""
