"""Read parked messages in full without using them up: measure, hold, requeue."""
