"""Samples from wherever people keep them, in one form for every function and command.

data = load_data("data.npz", model)        arrays named x and y, or x_train, y_train, x_test and y_test
data = load_data("inputs.npy", model)      inputs alone
data = load_data("table.csv", model)       a table whose column y, or columns y.name, are the targets
data = load_data("flowers", model)         a folder with a folder of images for each class
data = load_data("mine.py:load", model)    what a function returns
"""

from edgeprune.data.samples import Data
from edgeprune.data.sources import DataSource, load_data, open_data

__all__ = ["Data", "DataSource", "load_data", "open_data"]
