"""The async use cases over the adapters: apply, consume, publish, read parked messages, replay."""
