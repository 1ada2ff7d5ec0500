"""A plan is carried out where it was made, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amqpflow.errors import RefusedError
from amqpflow.planning.compare.diff import diff
from amqpflow.services.provisioning.plan_files import require_current
from tests.plans import observation
from tests.topologies import topology

SHOP = topology({"orders": [5000]}, vhost="")


def test_a_plan_is_not_for_another_virtual_host() -> None:
    """The file need not name one, and without bindings of its own no step tells the two apart."""
    here, there = (diff(SHOP, replace(observation(), vhost=vhost)) for vhost in ("staging", "production"))
    assert here.changes == there.changes
    require_current(here, here)
    with pytest.raises(RefusedError, match="made for the virtual host staging, this is production; nothing was done"):
        require_current(here, there)
