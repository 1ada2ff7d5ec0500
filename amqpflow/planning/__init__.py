"""Desired state against observed state -> a plan of steps, each prefix of which is safe. Pure."""
