"""A delivery from a parking queue -> a parked message -> the publish that replays it. Pure."""
