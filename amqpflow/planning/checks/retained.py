"""Messages that RabbitMQ keeps because their dead-lettering does not succeed (fact 4.5), and whether they are seen."""

from __future__ import annotations

from collections.abc import Iterator

from amqpflow.model.routes import CompiledTopology
from amqpflow.model.units import plural
from amqpflow.planning.values.findings import Finding, warn
from amqpflow.planning.values.observation import Observation
from amqpflow.planning.values.ref import Ref


def retained(desired: CompiledTopology, observed: Observation) -> Iterator[Finding]:
    """Warn of each queue of the topology that holds such messages, or that they are not counted on this broker."""
    if not observed.statistics:
        yield warn(
            "no-statistics",
            Ref(observed.product, observed.release),
            "its statistics are switched off (management_agent.disable_metrics_collector): consumers, rates and sizes "
            "are not known, and of messages that are neither ready nor unacked only how many there are",
            "switch them on to see which messages RabbitMQ retains",
        )
    names = {*desired.desired.queues, *desired.required_queues}
    for name, count in sorted(observed.retained.items()):
        if count > 0 and name in names:
            yield warn(
                "retained",
                Ref("queue", name),
                f"RabbitMQ retains {plural(count, 'message')} whose dead-lettering did not succeed (messages_dlx, "
                "statistics that are up to 10 s old): their target is missing, full or not bound",
                "repair the target: RabbitMQ tries again every 3 minutes",
            )
