"""Parked messages as values, which of them to replay, and what to publish for each. Pure."""
