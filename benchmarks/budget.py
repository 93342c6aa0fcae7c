"""From a budget to a file: `compress` beside what people do today, on Fashion-MNIST.

    python benchmarks/budget.py [--nets resnet8] [--targets phone] [--drops 0.01] [--ways compress int8 zeros]
    python benchmarks/budget.py --rank 12       how well trials without training rank 12 random plans
    python benchmarks/budget.py --candidates 20 how long a trial without training takes
    python benchmarks/budget.py --bits 0.7      what bits chosen layer by layer gain within 0.7 of the int8 file's bytes

A dense net is trained once. For each device and each allowed drop `compress` looks for the smallest net; beside it are
(a) `int8`: the dense net, quantized; (b) `zeros`: 80 % zeros with TF-MOT's schedule, then int8; (c) `scratch`: as many
MACs as the found net by uniform widths, trained from scratch for as long as compress took; (d) `macs`: a plan of as
many MACs with the same training after the dense net. All are int8 files, and `int4` is what compress found with
weights of 4 bits, solved without training. `fast` is a search of its own, whose file must also be 2.5 times faster
than the dense int8 file. They are scored on the half of the test images that compress did not look at, and timed in
turns. Rows are added to benchmarks/out/budget/NET.json as they come, and those that are there are not made again;
compress itself continues where it was stopped. Goal at one point: 4 times fewer MACs, 12 times smaller than the dense
float file, 2.5 times faster than the dense int8 file, ahead of (a) to (d), in 45 minutes on two cores.

With `--bits` the limit is a share of the bytes of the dense int8 file. Beside what compress finds (`bits`) are the same
net with 4 bits in all layers and with 8, which breaks the limit; and the widest nets by a plan of MACs whose files hold
it with 4 bits in all layers, or with 8, with the same training. Their rows are in NET_bits.json.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from channel_accuracy import BATCH_SIZE, LEARNING_RATE, NETS, Data, load, train
from results import Results

import edgeprune as ep
from edgeprune import flavor
from edgeprune.measure.tflm import MicroError
from edgeprune.search.budget import Budget
from edgeprune.search.compress_result import CompressResult, rank_correlation
from edgeprune.search.strategies.search_space import ways_of
from edgeprune.search.trial.file_costs import untrained_costs
from edgeprune.search.trial.job import Job, Samples, TrialSettings, Work
from edgeprune.search.trial.maker import Maker
from edgeprune.search.trial.record import Candidate, Trial
from edgeprune.search.verdict.gate import hold_out
from edgeprune.targets import target as target_of
from edgeprune.text_table import text_table

OUT = Path(__file__).parent / "out" / "budget"
WAYS = ("compress", "int4", "int8", "zeros", "scratch", "macs", "fast")
WAYS_OF_BITS = ("bits", "int4", "int8", "widest int4", "widest int8")
FINE_TUNING_RATE = 4e-3
GOALS = {"macs": 4.0, "size": 12.0, "latency": 2.5}


def dense_model(name: str, data: Data, epochs: int, results: Results) -> Any:
    """The trained dense net: from its file, or trained now."""
    path = OUT / f"{name}.keras"
    if results.get(way="dense") and path.exists():
        return flavor.load_model(path)
    flavor.keras_module(flavor.KERAS_3).utils.set_random_seed(1)
    model = NETS[name]()
    begin = time.perf_counter()
    train(model, data, epochs, LEARNING_RATE, f"{name}, dense")
    seconds = time.perf_counter() - begin
    model.compile(
        flavor.keras_of(model).optimizers.Adam(FINE_TUNING_RATE),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.save(path)
    results.add(way="dense", epochs=epochs, seconds=seconds, macs=ep.count_macs(model).total)
    return model


def search(model: Any, data: Data, arguments: argparse.Namespace, folder: Path, **limits: Any) -> CompressResult:
    """What compress finds, or found before."""
    return ep.compress(
        model,
        (data.x_train, data.y_train),
        (data.x_test, data.y_test),
        **limits,
        epochs=arguments.epochs,
        batch_size=BATCH_SIZE,
        learning_rate=FINE_TUNING_RATE,
        num_trials=arguments.trials,
        num_finalists=arguments.finalists,
        time_budget=60 * arguments.minutes,
        output_dir=folder,
        bundle=False,
        resume=True,
    )


def compressed(result: CompressResult) -> dict[str, Any]:
    """The row of what compress finds."""
    assert result.model is not None and result.path is not None and result.candidate is not None
    print(result, flush=True)
    return {
        "accepted": result.accepted,
        "seconds": sum(trial.seconds for trial in result.trials),
        "macs": ep.count_macs(result.model).total,
        "ranks": None if np.isnan(result.rank_correlation) else result.rank_correlation,
        "candidate": result.candidate.to_dict(),
        "file": str(result.path),
    }


def tuned(model: Any, data: Data, epochs: int, teacher: Any) -> Any:
    """A smaller net trained as compress trains."""
    keras = flavor.keras_of(model)
    keras.utils.set_random_seed(0)
    steps = epochs * -(-len(data.x_train) // BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(FINE_TUNING_RATE, steps)
    arrays = (data.x_train, data.y_train)
    return ep.distill(model, teacher, *arrays, epochs=epochs, batch_size=BATCH_SIZE, learning_rate=rate)


def baseline(way: str, model: Any, data: Data, epochs: int, found: dict[str, Any], dense: dict[str, Any]) -> Any:
    """The net of (a) to (d)."""
    if way == "int8":
        return model
    if way == "zeros":
        steps = epochs * -(-len(data.x_train) // BATCH_SIZE)
        schedule = ep.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=max(1, steps // 2), frequency=50)
        pruned = ep.prune_low_magnitude(model, schedule)
        keras = flavor.keras_of(model)
        rate = keras.optimizers.schedules.CosineDecay(FINE_TUNING_RATE, steps)
        pruned.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        keras.utils.set_random_seed(0)
        arrays, callbacks = (data.x_train, data.y_train), [ep.UpdatePruningStep()]
        pruned.fit(*arrays, epochs=epochs, batch_size=BATCH_SIZE, verbose=0, callbacks=callbacks)
        return ep.strip_pruning(pruned)
    share = found["macs"] / dense["macs"]
    if way == "macs":
        return tuned(ep.plan_channels(model, target_macs=share, round_to=8).apply(), data, epochs, model)
    narrow = ep.plan_channels(model, target_macs=share, scope="local").apply()
    flavor.keras_of(model).utils.set_random_seed(1)
    fresh = flavor.keras_of(model).models.clone_model(narrow)
    per_epoch = dense["seconds"] / dense["epochs"] * (0.3 + 0.7 * share)  # a narrow net takes less, not as little
    train(fresh, data, max(1, round(found["seconds"] / per_epoch)), LEARNING_RATE, "from scratch")
    return fresh


def scored(path: Path, data: Data) -> dict[str, Any]:
    """What is measured on a file, but its time; None for the arena of one that TFLM does not run."""
    held = Samples(*hold_out(data.x_test, data.y_test, seed=0)[1])
    size = ep.file_size(path)
    try:
        arena = ep.measure.measure_arena(path).bytes
    except MicroError:  # dense layers of 4 bits with a scale for each unit
        arena = None
    accuracy = ep.accuracy(path, held.x, held.y)
    return {"accuracy": accuracy, "size": size.bytes, "gzip_size": size.gzip_bytes, "arena": arena}


def measure(name: str, data: Data, arguments: argparse.Namespace, results: Results) -> Any:
    """All rows of a net."""
    model = dense_model(name, data, arguments.epochs_dense, results)
    dense = results.get(way="dense")
    assert dense is not None
    if "float_size" not in dense:
        path = OUT / f"{name}_float.tflite"
        ep.export_tflite(model, path, overwrite=True, verify=False)
        held = hold_out(data.x_test, data.y_test, seed=0)[1]
        results.update(dense, float_size=path.stat().st_size, accuracy=ep.accuracy(model, held[0], held[1]))
    for target in arguments.targets:
        for drop in arguments.drops:
            key = dict(target=target, drop=drop)
            for way in arguments.ways:
                if results.get(**key, way=way):
                    continue
                folder = OUT / name / target / str(drop)
                limits = dict(target=target, max_accuracy_drop=drop)
                found = results.get(**key, way="compress")
                if way == "compress":
                    row = compressed(search(model, data, arguments, folder, **limits))
                elif way == "fast":
                    dense_file = results.get(**key, way="int8")
                    assert dense_file is not None, "it is compared with the dense int8 file"
                    if "latency_ms" not in dense_file:  # a search that continues has the limit that it began with
                        timed(results, key)
                    limits["max_latency_ms"] = dense_file["latency_ms"] / GOALS["latency"]
                    row = compressed(search(model, data, arguments, folder / way, **limits))
                else:
                    assert found is not None, "the others are as large, or as long, as what compress found"
                    begin = time.perf_counter()
                    if way == "int4":
                        net = search(model, data, arguments, folder, **limits).model
                        if found["candidate"].get("quantize_aware"):  # its weights are those of 8 bits
                            net = ep.strip_quantization(net)
                    else:
                        net = baseline(way, model, data, arguments.epochs, found, dense)
                    row = {"seconds": time.perf_counter() - begin, "macs": ep.count_macs(net).total}
                    row["file"] = str(folder / f"{way}.tflite")
                    scheme = "int4" if way == "int4" else "int8"
                    ep.export_tflite(net, row["file"], scheme, data.x_train[:512], overwrite=True, verify=False)
                results.add(**key, way=way, **row, **scored(Path(row["file"]), data))
            timed(results, key)
    return model


def timed(results: Results, key: dict[str, Any]) -> None:
    """The times of all files, in turns."""
    rows = [row for row in results.rows if key.items() <= row.items()]
    found = ep.benchmark([row["file"] for row in rows], num_runs=200)
    for row, time_of in zip(rows, found.rows, strict=True):
        results.update(row, latency_ms=time_of.milliseconds)


def file_bytes(model: Any, data: Data, scheme: Any, target: str) -> float:
    """The size of a model's file, known without its training."""
    return untrained_costs(model, scheme, data.x_train[:64], target_of(target), ["max_size"])["size"]


def widest_within(limit: float, model: Any, data: Data, scheme: Any, target: str) -> Any:
    """The net with the most MACs of which the file has no more bytes."""
    if file_bytes(model, data, scheme, target) <= limit:
        return model
    low, high, found = 0.02, 1.0, None
    while high / low > 1.02:
        share = float(np.sqrt(low * high))
        net = ep.plan_channels(model, target_macs=share, round_to=4).apply()
        if file_bytes(net, data, scheme, target) <= limit:
            low, found = share, net
        else:
            high = share
    assert found is not None, "no net is as small"
    return found


def measure_bits(name: str, model: Any, data: Data, arguments: argparse.Namespace) -> None:
    """All rows of a net at limits on bytes, and their tables."""
    rows = Results(OUT / f"{name}_bits.json")
    for target in arguments.targets:
        whole = file_bytes(model, data, "int8", target)
        for share in arguments.bits:
            drop, limit = arguments.drops[0], int(share * whole)
            key = dict(target=target, drop=drop, bits=share)
            folder = OUT / name / target / f"bits_{share}"
            limits = dict(target=target, max_accuracy_drop=drop, max_size=limit)
            for way in WAYS_OF_BITS:
                if rows.get(**key, way=way):
                    continue
                begin = time.perf_counter()
                if way == "bits":
                    row = compressed(search(model, data, arguments, folder, **limits))
                else:
                    scheme = ways_of("int4" if "int4" in way else "int8", target_of(target), is_training=False)[0][0]
                    if way.startswith("widest"):
                        net = widest_within(limit, model, data, scheme, target)
                        net = net if net is model else tuned(net, data, arguments.epochs, model)
                    else:
                        net = search(model, data, arguments, folder, **limits).model
                    row = {"file": str(folder / f"{way}.tflite"), "macs": ep.count_macs(net).total}
                    settings = dict(calibration="min-max", target=target, overwrite=True, verify=False)
                    ep.export_tflite(net, row["file"], scheme, data.x_train[:512], **settings)
                    row["seconds"] = time.perf_counter() - begin
                rows.add(**key, way=way, **row, **scored(Path(row["file"]), data))
            print(table_of_bits(name, model, rows, key, limit), flush=True)


def table_of_bits(name: str, model: Any, results: Results, key: dict[str, Any], limit: int) -> str:
    macs = ep.count_macs(model).total
    found = [(way, results.get(**key, way=way)) for way in WAYS_OF_BITS]
    rows = [
        (
            way,
            f"{100 * row['accuracy']:.2f}",
            f"{row['size']:,}",
            f"{row['size'] / limit:.0%}",
            f"{macs / row['macs']:.2f}x",
            f"{row['seconds'] / 60:.1f}",
        )
        for way, row in found
        if row is not None
    ]
    title = f"{name} on {key['target']} within {limit:,} bytes, {key['bits']:g} of the int8 file's"
    return f"{title}\n{text_table(('way', 'accuracy', 'bytes', 'of the limit', 'MACs', 'minutes'), rows)}"


def maker_of(model: Any, data: Data, epochs: int, target: str) -> Maker:
    """What makes trials as compress does."""
    judged = Samples(*hold_out(data.x_test, data.y_test, seed=0)[0])
    settings = TrialSettings(target_of(target), epochs, BATCH_SIZE, FINE_TUNING_RATE, 0)
    train_on = Samples(data.x_train, data.y_train)
    return Maker(Work(model, train_on, judged, None, Budget(max_accuracy_drop=1.0), settings))


def random_candidate(maker: Maker, number: int, epochs: int) -> Candidate:
    """Random widths, of about a quarter to all of each group."""
    random = np.random.default_rng(number)
    groups = maker.variant().free_groups
    widths = {group.name: max(1, round(group.count * random.uniform(0.2, 1.0))) for group in groups}
    return Candidate(widths, quantization="int8", epochs=(epochs,))


def ranks(model: Any, data: Data, arguments: argparse.Namespace, results: Results) -> float:
    """Spearman's correlation over random plans."""
    maker = maker_of(model, data, arguments.epochs, "phone")
    trials = []
    for number in range(arguments.rank):
        candidate = random_candidate(maker, number, arguments.epochs)
        row = results.get(way="rank", number=number, epochs=arguments.epochs)
        if row is None:
            quick, measured = (maker.made(Job(stage, candidate)) for stage in ("quick", "measured"))
            figures = {
                "quick_score": quick.figures["quick_score"],
                "score": measured.figures["score"],
                "macs": quick.figures["macs"],
                "quick_seconds": quick.seconds,
                "seconds": measured.seconds,
            }
            row = results.add(way="rank", number=number, epochs=arguments.epochs, **figures)
            print({key: round(value, 4) for key, value in figures.items()}, flush=True)
        trials.append(Trial(number, "measured", {}, candidate, quick_score=row["quick_score"], score=row["score"]))
    return rank_correlation(trials)


def table(name: str, results: Results, key: dict[str, Any]) -> str:
    dense = results.get(way="dense")
    int8 = results.get(**key, way="int8")
    assert dense is not None
    rows = []
    for way in WAYS:
        row = results.get(**key, way=way)
        if row is None:
            continue
        times = "" if int8 is None else f"{int8['latency_ms'] / row['latency_ms']:.2f}x"
        rows.append(
            (
                way,
                f"{100 * row['accuracy']:.2f}",
                f"{100 * (dense['accuracy'] - row['accuracy']):.2f}",
                f"{dense['macs'] / row['macs']:.2f}x",
                f"{row['size']:,}",
                f"{dense['float_size'] / row['size']:.2f}x",
                f"{row['gzip_size']:,}",
                f"{row['latency_ms']:.3f}",
                times,
                "" if row["arena"] is None else f"{row['arena']:,}",
                f"{row['seconds'] / 60:.1f}",
            )
        )
    header = (
        "way", "accuracy", "lost", "MACs", "bytes", "of float", "gzip'd", "ms", "of int8", "arena", "minutes",
    )  # fmt: skip
    title = f"{name} ({100 * dense['accuracy']:.2f} %) on {key['target']}, {100 * key['drop']:g} points allowed"
    return f"{title}\n{text_table(header, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=[*NETS])
    parser.add_argument("--targets", nargs="+", default=["phone", "cortex-m"])
    parser.add_argument("--drops", nargs="+", type=float, default=[0.01, 0.005, 0.02])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--epochs-dense", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6, help="of each net that is trained after the cut")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--finalists", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=42, help="for the trials of a search")
    parser.add_argument("--rank", type=int, default=0, help="random plans that are ranked, instead of the table")
    parser.add_argument("--candidates", type=int, default=0, help="random plans that are timed, instead of the table")
    parser.add_argument("--bits", nargs="+", type=float, default=[], help="shares of the int8 file's bytes")
    parser.add_argument("--sample", action="store_true", help="the sample inside the package instead of the full set")
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    data = load(not arguments.sample)
    for name in arguments.nets:
        results = Results(OUT / f"{name}.json")
        if arguments.rank or arguments.candidates or arguments.bits:
            model = dense_model(name, data, arguments.epochs_dense, results)
        if arguments.candidates:
            maker = maker_of(model, data, 0, "phone")
            seconds = [
                maker.made(Job("quick", random_candidate(maker, number, 0))).seconds
                for number in range(arguments.candidates)
            ]
            each = np.mean(seconds[1:])
            print(f"{name}: first {seconds[0]:.1f} s, then {each:.2f} s each: {600 / each:.0f} in ten minutes")
        elif arguments.bits:
            measure_bits(name, model, data, arguments)
        elif arguments.rank:
            found = ranks(model, data, arguments, results)
            print(f"{name}: Spearman {found:.2f} over {arguments.rank} random plans, {arguments.epochs} epochs")
        else:
            measure(name, data, arguments, results)
            for target in arguments.targets:
                for drop in arguments.drops:
                    print(table(name, results, dict(target=target, drop=drop)), flush=True)


if __name__ == "__main__":
    main()
