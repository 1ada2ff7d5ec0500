"""Observe a broker, plan, apply under a lock, and verify at a consumer's start."""
