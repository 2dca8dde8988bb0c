"""A world for meters and a GPU in it."""

import pytest
from fake_meters import World
from fake_nvml import Board


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def board(world: World) -> Board:
    return Board(world)
