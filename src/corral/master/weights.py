"""The weights of roles: how much more than another a role may claim. Source: Mesos v1, UPDATE_WEIGHTS."""

import math

from corral.lib.errors import Invalid
from corral.master import timers
from corral.master.spec import SetWeight, WeightRecord, weight_key
from corral.master.state import MasterState
from corral.model.ids import check_role
from corral.runtime.core import Effect, Note, Persist


def set_weight(state: MasterState, command: SetWeight) -> list[Effect]:
    """Remember the role's weight and divide anew; 1 is what every role has by itself.

    Errors: `Invalid` for a role that cannot be named so, or a weight that is not above 0.
    """
    check_role(command.role)
    if not command.weight > 0 or math.isinf(command.weight):
        raise Invalid(f"role {command.role} is to weigh {command.weight:g}; give a number above 0")
    facts = {"role": command.role, "weight": command.weight}
    note = Note("weight set", "an operator asked for it", "info", facts)
    if command.weight == 1.0:
        state.weights.pop(command.role, None)
        return [Persist(weight_key(command.role), None), note, *timers.ask_allocation(state)]
    state.weights[command.role] = command.weight
    return [Persist(weight_key(command.role), WeightRecord(command.weight)), note, *timers.ask_allocation(state)]
