"""The commands of `amqpflow parked`."""
