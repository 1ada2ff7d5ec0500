"""Saved plans: files that are written by `plan --out` and carried out by `apply`, exactly or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from amqpflow.errors import AmqpflowError, RefusedError
from amqpflow.planning.saved.json_codec import UnreadablePlanError
from amqpflow.planning.saved.saved_plan import is_saved_plan, plan_from_text, plan_to_text
from amqpflow.planning.saved.staleness import changes_since
from amqpflow.planning.values.plan import Plan
from amqpflow.services.loading import durable_file
from amqpflow.version import __version__

_AGAIN = "make the plan again: amqpflow plan FILE --out PATH"


def save_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a plan, whole or not at all. Only its owner may read and write the file (mode 0600): values of variables
    stand in it, and apply obeys it. Raises AmqpflowError: it cannot be written.
    """
    try:
        with durable_file.replacing(Path(path)) as fd:
            durable_file.append(fd, plan_to_text(plan, version=__version__).encode())
    except OSError as error:
        raise AmqpflowError(f"cannot save the plan as {path}: {error.strerror or error}") from error


def load_plan(path: str | os.PathLike[str]) -> Plan | None:
    """Read a saved plan; None when the file is something else, a topology file for example. Raises RefusedError: it is
    a saved plan, but cut, edited, or made by another version.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(200)
            if not is_saved_plan(start.decode("utf-8", "replace")):
                return None
            text = (start + file.read()).decode("utf-8")
        return plan_from_text(text, version=__version__)
    except OSError:
        return None  # reading it as a topology reports it
    except UnicodeDecodeError:
        reason = "it is not valid UTF-8: the file was edited or damaged"
    except UnreadablePlanError as error:
        reason = str(error)
    raise RefusedError(f"the saved plan {path} cannot be used: {reason}; nothing was done", hint=_AGAIN)


def require_current(then: Plan, now: Plan) -> None:
    """Check that a plan is still what would be planned.

    Args:
        then: what was agreed to.
        now: made again, just before it is carried out.

    Raises:
        RefusedError: it was made for another cluster or virtual host; or `problems` says what moved: which object,
            which attribute, from what to what. Nothing was done.
    """
    if then.vhost != now.vhost:
        raise RefusedError(
            f"the plan for {then.topology.name} was made for the virtual host {then.vhost}, this is {now.vhost}; "
            "nothing was done",
            hint="give the URL of that virtual host, or plan against this one",
        )
    if then.cluster_id and now.cluster_id:
        elsewhere, hint = then.cluster_id != now.cluster_id, ""
    else:
        elsewhere = bool(then.cluster and now.cluster and then.cluster != now.cluster)
        hint = (
            "; the nodes of a cluster without a name have different ones: set one (rabbitmqctl set_cluster_name), or "
            "plan and apply as a user with the tag policymaker, which may read the id of the cluster"
        )
    if elsewhere:
        this = now.cluster if now.cluster != then.cluster else "another one of that name"
        raise RefusedError(
            f"the plan for {then.topology.name} was made for the cluster {then.cluster}, this is {this}; "
            "nothing was done",
            hint=f"plan against this broker{hint}",
        )
    if (then.changes, then.refusals) != (now.changes, now.refusals):
        raise RefusedError(
            f"the plan for {then.topology.name} is stale: the broker changed since it was made; nothing was done",
            problems=changes_since(then, now),
            hint="plan again",
        )
