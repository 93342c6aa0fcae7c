"""The beginning of a .tflite file as a file of its own, to find the operator at which two runtimes part."""

from __future__ import annotations


def prefix(content: bytes, operators: int) -> bytes:
    """Cut a file behind one of its operators.

    Args:
        content: the content of a .tflite file.
        operators: how many to keep, 1 or more.

    Returns:
        The content of a file of the same inputs, whose outputs are those of the last operator; it has no signature.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:operators]
    graph.outputs = graph.operators[-1].outputs
    model.signatureDefs = None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
