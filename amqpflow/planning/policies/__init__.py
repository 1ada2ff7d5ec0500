"""Decide which policy works on a queue, and what it comes to."""
