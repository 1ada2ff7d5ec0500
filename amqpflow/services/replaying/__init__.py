"""Replay parked messages, with a journal of what was sent."""
