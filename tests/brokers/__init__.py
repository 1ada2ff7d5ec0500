"""The RabbitMQ nodes that tests run against: which they are, and their management API."""
