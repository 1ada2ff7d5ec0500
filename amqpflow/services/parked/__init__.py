"""List, count, export, restore and discard parked messages."""
