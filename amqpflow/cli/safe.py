"""Neutralise what came from a message or a broker before a terminal shows it: see `amqpflow.model.safe`."""

from __future__ import annotations

from amqpflow.model.safe import safe as safe
