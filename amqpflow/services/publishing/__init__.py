"""Publish and learn what became of it: confirms, returns, reconnects."""
