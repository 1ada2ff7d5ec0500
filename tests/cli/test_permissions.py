"""`amqpflow permissions` as users run it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from tests.commands import Result, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "orders" / "topology.yaml"


def permissions(*arguments: str, code: int = 0) -> Result:
    done = run("permissions", *arguments, env=os.environ)
    assert done.code == code, done.err
    return done


def test_the_lines_that_grant_them_are_ready_for_a_shell() -> None:
    lines = permissions(str(EXAMPLE)).out.splitlines()
    assert "# FILE names no virtual host: replace / if yours is another one." in lines
    granting = [shlex.split(line) for line in lines if line.startswith("rabbitmqctl")]
    assert len(granting) == 10
    consume = next(words for words in granting if "orders-consume" in words)
    assert consume == [
        "rabbitmqctl",
        "set_permissions",
        "--vhost",
        "/",
        "orders-consume",
        "^$",
        r"^orders\.(parking|retry)$",
        r"^orders\.(audit|payment)$",
    ]


def test_as_json_it_says_the_same() -> None:
    found = json.loads(permissions(str(EXAMPLE), "-o", "json", "--role", "replay", "--role", "apply").out)
    assert found["version"] == 1
    assert [role["role"] for role in found["roles"]] == ["apply", "replay"]
    for role in found["roles"]:
        assert set(role) == {
            "role",
            "purpose",
            "configure",
            "write",
            "read",
            "tags",
            "exact",
            "fits_every_release",
            "notes",
            "commands",
        }


def test_an_unknown_queue_is_wrong_usage_and_the_known_ones_are_named() -> None:
    done = permissions(str(EXAMPLE), "--queue", "orders.nope", code=64)
    assert "orders.payment" in done.err
