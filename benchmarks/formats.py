"""The demo's table on the full Fashion-MNIST: what 80 % zeros and each number format cost and gain.

    python benchmarks/formats.py            60,000 training images, 20 to 25 minutes on two cores
    python benchmarks/formats.py --quick    the sample inside the package, two minutes

Writes the files and benchmarks/out/formats.json. The goal: pruned int8 within 0.5 points of the dense float32 file and,
both gzip'd, at least 8 times smaller.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeprune import demo
from edgeprune.datasets import load_fashion_mnist
from edgeprune.report.tables import formats_markdown

OUTPUT = Path(__file__).parent / "out"
FULL = demo.DemoSettings(dense_epochs=12, pruned_epochs=11, batch_size=128, learning_rate=4e-3, frequency=50)
LARGEST_LOSS_IN_POINTS = 0.5
LEAST_TIMES_SMALLER = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train on the sample inside the package")
    parser.add_argument("--directory", help="folder with the four .gz files of the full set")
    arguments = parser.parse_args()

    recipe = demo.DemoSettings() if arguments.quick else FULL
    data = load_fashion_mnist(full=not arguments.quick, directory=arguments.directory)
    result = demo.run_demo(OUTPUT / ("formats_quick" if arguments.quick else "formats"), recipe, data, overwrite=True)

    dense, smallest = result.row("dense float32"), result.row("pruned int8")
    lost = 100 * (dense.accuracy - smallest.accuracy)
    reached = lost <= LARGEST_LOSS_IN_POINTS and smallest.smaller >= LEAST_TIMES_SMALLER
    name = "formats_quick.json" if arguments.quick else "formats.json"
    demo.save_json(OUTPUT / name, {**result.to_dict(), "points_lost": lost, "goal_reached": reached})

    print(formats_markdown(result.rows))
    print(f"\n{result.train_images:,} training and {result.test_images:,} test images, {result.seconds:.0f} s")
    print(f"pruned int8: {lost:+.2f} points lost (goal: at most {LARGEST_LOSS_IN_POINTS})")
    print(f"pruned int8: {smallest.smaller:.1f} times smaller, gzip'd (goal: at least {LEAST_TIMES_SMALLER:g})")
    print(f"goal {'reached' if reached else 'missed'}")


if __name__ == "__main__":
    main()
