"""What a model file would run, import or read from elsewhere when it is loaded.

Both Kerases build whatever objects a file's configuration names, and neither refuses all that can do harm: `tf_keras`
unpacks the Python code of a Lambda layer in an `.h5` or a SavedModel, imports any module, and calls any function of
TensorFlow's API while it rebuilds a graph. So the configuration is read first, here, and nothing is built of a file
that holds more than layers and weights.
Known attacks: CVE-2024-3660, CVE-2025-1550, CVE-2025-8747, CVE-2025-9905, CVE-2025-9906, CVE-2025-12058.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgeprune.flavor.kinds import KERAS_3, TF_KERAS, flavor_of_class, keras_module

if TYPE_CHECKING:
    import h5py
    import tensorflow as tf

# Where Keras keeps what a model is made of; `utils`, `applications`, `saving` and others load, download and write.
_MODELLING_NAMES = (
    "activations constraints dtype_policies engine experimental initializers layers losses metrics mixed_precision"
)
_MODELLING = {*_MODELLING_NAMES.split(), *"models ops optimizers quantizers random regularizers trainers".split()}
_FUNCTIONS = {"activations", "constraints", "initializers", "losses", "metrics", "ops", "regularizers"}
_EXTENSIONS = {"keras_cv", "keras_hub", "keras_nlp", "tensorflow_model_optimization", "edgeprune"}
_BUILD_ANYTHING = {"deserialize", "get", "serialize"}

# TensorFlow's functions and operators that read, write, connect or call Python. The others compute.
_UNSAFE_FUNCTION = re.compile(
    r"Print|Session|WholeFileReader|function|import_graph_def|load_\w*|matching_files|numpy_function|print|"
    r"py_func(tion)?|read_file|register_\w*|rpc_\w*|wrap_function|write_file|xla_(call|custom|launch)\w*"
)
_COMPUTING = re.compile(
    r"(__operators__|bitwise|debugging|dtypes|experimental\.numpy|image|linalg|math|math\.special|nn|quantization|"
    r"ragged|random|signal|sparse|strings|keras\.(activations|backend|losses|metrics))\.\w+|"
    r"io\.(decode|encode|parse|serialize|deserialize)_\w+"
)
_UNSAFE_OPERATOR = re.compile(
    r"Abort|\w*PyFunc\w*|(Read|Write)File|MatchingFiles\w*|\w*Dataset\w*|\w*Reader\w*|Rpc\w+|RemoteCall|Debug\w+|"
    r"\w*Summary(File|Db)?Writer|Write\w*Summary|ImportEvent|DumpTensor|CalibrationStatisticsSaver|Save|SaveSlices|"
    r"Restore|RestoreSlice|DistributedSave|FileSystem\w+|LoadAndRemapMatrix|GenerateVocabRemapping|RecordInput|"
    r"Xla(CallModule|CustomCall\w*|Launch\w*)"
)
# Every SavedModel is saved and restored by these; what the model itself computes needs none.
_CHECKPOINT_OPERATORS = {"SaveV2", "RestoreV2", "MergeV2Checkpoints"}


def check_model_file(path: Path, flavor: str) -> str | None:
    """Refuse a model file that holds more than layers and weights.

    Args:
        path: a `.keras` or `.h5` file, or the folder of a SavedModel.
        flavor: the Keras that will load it: what is registered with the other one would be imported.

    Returns:
        What compiling the model as its file says would do besides, in words: a loss of a module that is not imported,
        for example. `None` if nothing. Without compiling, the file is loaded all the same.

    Raises:
        ValueError: loading the file would run code, import a module, or read another file (the message names the
            layer), or the file is damaged.
    """
    try:
        parts = _saved_model(path) if path.is_dir() else _keras_file(path)
        configurations, compile_settings, others = map(list, parts)
        findings = [finding for part in configurations for finding in _of_configuration(part, flavor)] + others
        in_compiling = [finding for part in compile_settings for finding in _of_configuration(part, flavor)]
        in_compiling += [finding for part in compile_settings for finding in _unknown_functions(part, flavor)]
    except Exception as error:  # each format's reader raises its own kinds at a damaged file
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} could not be read as a Keras model. {type(error).__name__}: {reason}") from error
    if findings:
        raise ValueError(
            f"{path} is not loaded: {findings[0]}. If you trust the file, pass safe_mode=False "
            "(--unsafe on the command line)."
        )
    return next(iter(in_compiling), None)


def _keras_file(path: Path) -> tuple[list[Any], list[Any], list[str]]:
    """The configurations of a file, its compile settings, and what else is wrong with it."""
    if not (str(path).endswith(".keras") and zipfile.is_zipfile(path)):  # as the loaders distinguish the formats
        with path.open("rb") as file:
            return _hdf5(file)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        configuration = json.loads(archive.read("config.json")) if "config.json" in names else {}
        compile_settings = configuration.pop("compile_config", None)
        linked = []
        for name in (name for name in names if name.endswith(".h5")):
            with archive.open(name) as file:
                linked += _hdf5(file)[2]
    return [configuration], [compile_settings], linked


def _hdf5(file: IO[bytes]) -> tuple[list[Any], list[Any], list[str]]:
    import h5py

    with h5py.File(file, "r") as content:
        model, training = (
            json.loads(content.attrs[name]) if name in content.attrs else None
            for name in ("model_config", "training_config")
        )
        return [model], [training], list(_links(content))


def _links(content: h5py.Group) -> Iterator[str]:
    """Weights that lie in another file."""
    import h5py

    groups, seen = [content], set()
    while groups:
        group = groups.pop()
        address = h5py.h5o.get_info(group.id).addr
        for name in () if address in seen else group:
            if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                yield f"its weights {group.name}/{name} are read from another file"
                continue
            member = group.get(name)
            if isinstance(member, h5py.Group):
                groups.append(member)
            elif isinstance(member, h5py.Dataset) and (member.external or member.is_virtual):
                yield f"its weights {member.name} are read from another file"
        seen.add(address)


def _saved_model(folder: Path) -> tuple[list[Any], list[Any], list[str]]:
    """The same of a SavedModel, in which operators may do what no layer does."""
    import tensorflow as tf
    from tf_keras.protobuf import saved_metadata_pb2

    graphs = tf.__internal__.saved_model.parse_saved_model(str(folder)).meta_graphs
    written = [node.user_object.metadata for graph in graphs for node in graph.object_graph_def.nodes]
    metadata = folder / "keras_metadata.pb"
    if metadata.exists():
        written += [node.metadata for node in saved_metadata_pb2.SavedMetadata.FromString(metadata.read_bytes()).nodes]
    configurations = [json.loads(text) for text in written if text]
    compile_settings = [configuration.pop("training_config", None) for configuration in configurations]
    unsafe = [f"it runs the operator {node.op} ({node.name})" for graph in graphs for node in _unsafe_nodes(graph)]
    return configurations, compile_settings, unsafe


def _unsafe_nodes(graph: tf.compat.v1.MetaGraphDef) -> Iterator[Any]:
    """The operators of a SavedModel that do what no layer does, each with its own name."""
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    in_functions = (node for nodes in functions.values() for node in nodes)
    yield from filter(_unsafe_operator, (*graph.graph_def.node, *in_functions))
    # The model's own functions: those that it is saved and restored by stand beside them.
    for name in _reachable(graph.object_graph_def.concrete_functions, functions):
        yield from (node for node in functions[name] if node.op in _CHECKPOINT_OPERATORS)


def _reachable(names: Iterable[str], functions: Mapping[str, Iterable[Any]]) -> set[str]:
    """Some functions of a graph and those that they call, at any depth."""
    reached, waiting = set(), set(names) & functions.keys()
    while waiting:
        name = waiting.pop()
        reached.add(name)
        values = [value for node in functions[name] for value in node.attr.values()]
        called = {function.name for value in values for function in (value.func, *value.list.func)}
        waiting |= (called & functions.keys()) - reached
    return reached


def _of_configuration(configuration: object, flavor: str) -> Iterator[str]:
    """What the objects of one configuration would do, each with the name of its layer."""
    parts = [("the model", configuration)]
    while parts:
        owner, part = parts.pop()
        if isinstance(part, dict):
            if isinstance(part.get("class_name"), str):
                config = part["config"] if isinstance(part.get("config"), dict) else {}
                owner = f"layer {config['name']!r}" if isinstance(config.get("name"), str) else owner
                deed = _side_effect(part, config, flavor)
                if deed:
                    yield f"{owner} {deed}"
            parts += [(owner, value) for value in part.values()]
        elif isinstance(part, list):
            parts += [(owner, value) for value in part]


def _unknown_functions(part: object, flavor: str) -> Iterator[str]:
    """The custom functions in compile settings that are unknown here."""
    losses = [part.get("loss")] if isinstance(part, dict) else []
    while losses:  # a name, or names for each output, which Keras looks up in the first step of training alone
        loss = losses.pop()
        if isinstance(loss, dict) and isinstance(loss.get("class_name"), str):
            loss = loss.get("config") if loss["class_name"] == "function" else None
        if isinstance(loss, str) and not _is_known_function(loss, flavor):
            yield f"it was compiled with {loss!r}, which is unknown here"
        elif isinstance(loss, dict | list):
            losses += loss.values() if isinstance(loss, dict) else loss


def _side_effect(description: dict[str, Any], config: dict[str, Any], flavor: str) -> str | None:
    """What building one object would do besides, `None` where it is a layer like any other."""
    kind = description["class_name"].rpartition(">")[2]
    if kind == "__lambda__" or any(key.endswith("_type") and value == "lambda" for key, value in config.items()):
        return "holds Python code, which would be run"
    if kind == "TFSMLayer":
        return f"runs the SavedModel {config.get('filepath')!r}"
    if isinstance(config.get("vocabulary"), str):
        return f"reads its vocabulary from the file {config['vocabulary']!r}"
    if kind in ("TFOpLambda", "SlicingOpLambda") and not _computes(str(config.get("function"))):
        return f"calls tf.{config.get('function')}"
    if kind == "ClassMethod" and config.get("cls_symbol") not in ("RaggedTensor", "SparseTensor"):
        return f"calls tf.{config.get('cls_symbol')}.{config.get('method_name')}"
    if kind in ("InstanceMethod", "InstanceProperty") and str(config.get("attr_name")).startswith("_"):
        return f"reads the attribute {config.get('attr_name')}"
    if kind == "TensorFlowOpLayer" and _unsafe_operator(_node_def(config.get("node_def"))):
        return "runs an operator that reads or writes files or calls Python"
    return _foreign(description, kind, flavor)


def _foreign(description: dict[str, Any], kind: str, flavor: str) -> str | None:
    """What would be imported that is no part of Keras, nor registered with it or imported already as a Keras class."""
    module = description.get("module")
    is_function = kind == "function"
    name = str(description.get("config" if is_function else "spec_name" if kind == "__typespec__" else "class_name"))
    if not isinstance(module, str) or any(
        _registered(one, flavor) for one in (name, description.get("registered_name"))
    ):
        return None
    package, *inner = module.split(".")
    if module == "builtins":
        foreign = hasattr(builtins, name)
    elif package in (KERAS_3, TF_KERAS):
        subpackages = [part for part in inner if part not in ("src", "api", "_v2", "legacy", "keras")]
        allowed = _FUNCTIONS if is_function else _MODELLING
        foreign = bool(subpackages or is_function) and (not subpackages or subpackages[0] not in allowed)
        foreign = foreign or name in _BUILD_ANYTHING or (not is_function and not name[:1].isupper())
    elif package == "tensorflow":
        foreign = not (
            re.fullmatch(r"tensorflow\.python\.ops\.\w*(array|math|nn)_(ops|impl)", module)
            or kind == "__typespec__"
            and name.endswith("Spec")
        )
    elif package in _EXTENSIONS:
        foreign = is_function or not name[:1].isupper()
    else:
        known = getattr(sys.modules.get(module), name, None)
        foreign = not (isinstance(known, type) and flavor_of_class(known))
    if not foreign:
        return None
    return (
        f"needs {name!r} of the module {module!r}, which would be imported: pass it in custom_objects "
        "(on the command line, --custom MODULE)"
    )


def _registered(name: object, flavor: str) -> bool:
    return keras_module(flavor).saving.get_registered_object(name) is not None


def _is_known_function(name: str, flavor: str) -> bool:
    """Whether a loss is one of Keras's own, or registered."""
    keras = keras_module(flavor)
    for known in (keras.losses, keras.metrics):
        with contextlib.suppress(ValueError):  # no loss or metric; the short names (`mse`) are no attributes
            if callable(known.get(name)):
                return True
    return _registered(name, flavor)


def _computes(function: str) -> bool:
    """Whether a function of TensorFlow's API does nothing but compute."""
    function = function.removeprefix("compat.v1.")
    namespace, _, name = function.rpartition(".")
    if namespace == "raw_ops":
        return not _UNSAFE_OPERATOR.fullmatch(name)
    return not _UNSAFE_FUNCTION.fullmatch(name) if not namespace else bool(_COMPUTING.fullmatch(function))


def _node_def(written: Any) -> Any:  # what a file holds in that place
    import tensorflow as tf
    from google.protobuf import json_format

    if isinstance(written, dict):
        return json_format.ParseDict(written, tf.compat.v1.NodeDef())
    return tf.compat.v1.NodeDef.FromString(str(written).encode())


def _unsafe_operator(node: tf.compat.v1.NodeDef) -> bool:
    if node.op == "PrintV2":  # to the terminal it may
        return node.attr["output_stream"].s.startswith(b"file:")
    return bool(_UNSAFE_OPERATOR.fullmatch(node.op))
