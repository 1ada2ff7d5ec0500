"""The command line: thin click commands over amqpflow.api, and what they print."""
