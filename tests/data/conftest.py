"""Models of which data are read, and a folder for them."""

from __future__ import annotations

import sys

import pytest

from edgeprune import flavor


@pytest.fixture(scope="module")
def keras():
    return flavor.keras_module(flavor.KERAS_3)


@pytest.fixture(scope="module")
def one(keras):
    """A model of one input and one output."""
    return keras.Sequential([keras.Input((4,), name="features"), keras.layers.Dense(3, name="kind")], name="one")


@pytest.fixture(scope="module")
def two(keras):
    """A model of two inputs and two outputs."""
    left, right = keras.Input((3,), name="left"), keras.Input((1,), name="right")
    joined = keras.layers.Concatenate(name="joined")([left, right])
    outputs = [keras.layers.Dense(1, name="value")(joined), keras.layers.Dense(2, name="box")(joined)]
    return keras.Model([left, right], outputs, name="two")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder; modules that a test writes there are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path
