"""A private, throw-away RabbitMQ node: for `amqpflow dev`, the demo and the tests."""
