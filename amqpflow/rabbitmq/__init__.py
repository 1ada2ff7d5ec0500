"""The adapters: everything that talks to a RabbitMQ, and the only place that knows aio-pika's and HTTP's errors."""
