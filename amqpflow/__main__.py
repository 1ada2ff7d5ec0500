"""`python -m amqpflow` is the console script."""

from amqpflow.cli.main import main

if __name__ == "__main__":
    main()
