"""Look for what must not be done, or must be consented to."""
