import importlib
import pkgutil

import msgspec
import pytest

import corral.model
from corral.runtime import core


def structs(module_name: str) -> list[type[msgspec.Struct]]:
    module = importlib.import_module(module_name)
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__module__ == module_name
    ]


MODULES = [f"corral.model.{info.name}" for info in pkgutil.iter_modules(corral.model.__path__)]


@pytest.mark.parametrize("module_name", MODULES)
def test_values_are_frozen_and_cost_the_garbage_collector_nothing(module_name: str) -> None:
    for struct in structs(module_name):
        assert struct.__struct_config__.frozen, struct
        assert not struct.__struct_config__.gc, f"{struct.__name__} is a frozen tree: say gc=False"


def test_effects_cost_the_garbage_collector_nothing_unless_they_may_be_in_a_cycle() -> None:
    tracked = {each.__name__ for each in structs(core.__name__) if each.__struct_config__.gc}
    assert tracked == {"Reply", "Refuse"}
