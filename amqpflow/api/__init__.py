"""The client, and a function for each of its calls: what the commands do, as calls that return values."""

from __future__ import annotations

from .client import Client as Client
from .client import connect as connect
from .functions import adopt as adopt
from .functions import apply as apply
from .functions import choose_parked as choose_parked
from .functions import destroy as destroy
from .functions import discard_parked as discard_parked
from .functions import disown as disown
from .functions import drift as drift
from .functions import explain as explain
from .functions import export_parked as export_parked
from .functions import parked as parked
from .functions import parked_message as parked_message
from .functions import parked_stats as parked_stats
from .functions import plan as plan
from .functions import plan_replay as plan_replay
from .functions import replay as replay
from .functions import restore_parked as restore_parked
from .parked_client import ParkedClient as ParkedClient
from .replaying import prune_replay_history as prune_replay_history
from .replaying import replay_history as replay_history
from .replaying import resumed_replay as resumed_replay
from .reporting import explain_offline as explain_offline
from .reporting import permissions as permissions
