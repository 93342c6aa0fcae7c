"""The bundle for a computer with Linux: a file and how Python calls it."""

from __future__ import annotations

import os
import re
import shutil
import sys

import numpy as np
import pytest
from bundle.golden_files import golden, succeed
from nets.exported_nets import image_net
from nets.samples import numbers

from edgeprune.bundle.bundle import export_bundle
from edgeprune.bundle.content import Preprocessing

LABELS = ['a "quoted"', "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def computer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("computer") / "b"
    return export_bundle(
        image_net(),
        folder,
        "raspberry-pi",
        numbers(24, 12, 12, 3),
        labels=LABELS,
        preprocessing=Preprocessing((120.0, 110.5, 100.0), (60.0, 57.5, 58.25)),
    )


def test_a_computer_s_bundle_is_python_alone(computer):
    assert set(computer.files) == {
        *("model.tflite", "labels.txt", "README.md", "model_card.json", "MODEL_CARD.md", "SHA256SUMS"),
        *("python/call_model.py", "golden/golden.bin", "golden/golden.json"),
    }
    texts = "".join(
        (computer.directory / name).read_text(encoding="utf-8") for name in computer.files if name.endswith("md")
    )
    assert not re.search("kotlin|android|gradle|phone", texts, re.IGNORECASE)
    succeed([sys.executable, "-P", computer.directory / "python/call_model.py"])


def test_a_computer_s_readme_runs(computer, tmp_path):
    folder = shutil.copytree(computer.directory, tmp_path / "pi")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    inputs, outputs, _ = golden(computer)
    np.save(folder / "image.npy", inputs["image"][0])
    program = f"import numpy as np\nimage = np.load('image.npy')\n{code}"
    said = succeed([sys.executable, "-c", program], cwd=folder, env=os.environ | {"PYTHONIOENCODING": "utf-8"})
    assert said.strip() == LABELS[int(outputs["scores"][0].argmax())]
