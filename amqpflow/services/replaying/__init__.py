"""Put parked messages back, with a journal of what was sent."""
