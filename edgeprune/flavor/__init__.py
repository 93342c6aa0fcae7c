"""The one room that knows there are two Kerases: `keras` 3 and the legacy `tf_keras`.

Everything else asks here: which Keras does this model belong to, what are its layers, who feeds whom.
Importing this module imports neither of them.

From the bottom up: `kinds`, `graphs`, `copies` and `functions`; `files` and `training` beside them.
"""

from edgeprune.flavor.copies import (
    clone_built_layer as clone_built_layer,
)
from edgeprune.flavor.copies import (
    clone_input as clone_input,
)
from edgeprune.flavor.copies import (
    clone_layer as clone_layer,
)
from edgeprune.flavor.copies import (
    copy_compile_state as copy_compile_state,
)
from edgeprune.flavor.copies import (
    copy_layer_state as copy_layer_state,
)
from edgeprune.flavor.copies import (
    copy_trainable as copy_trainable,
)
from edgeprune.flavor.copies import (
    functional_model as functional_model,
)
from edgeprune.flavor.copies import (
    functional_stand_in as functional_stand_in,
)
from edgeprune.flavor.copies import (
    names_of_own_weights as names_of_own_weights,
)
from edgeprune.flavor.copies import (
    rebuild as rebuild,
)
from edgeprune.flavor.copies import (
    unfold_layers as unfold_layers,
)
from edgeprune.flavor.copies import (
    variables_born_with as variables_born_with,
)
from edgeprune.flavor.files import (
    import_tfmot as import_tfmot,
)
from edgeprune.flavor.files import (
    load_model as load_model,
)
from edgeprune.flavor.functions import (
    call_function as call_function,
)
from edgeprune.flavor.functions import (
    function_arguments as function_arguments,
)
from edgeprune.flavor.functions import (
    run_function as run_function,
)
from edgeprune.flavor.functions import (
    slice_entries as slice_entries,
)
from edgeprune.flavor.graphs import (
    GraphNode as GraphNode,
)
from edgeprune.flavor.graphs import (
    LayerCall as LayerCall,
)
from edgeprune.flavor.graphs import (
    call_specs as call_specs,
)
from edgeprune.flavor.graphs import (
    function_name as function_name,
)
from edgeprune.flavor.graphs import (
    graph_nodes as graph_nodes,
)
from edgeprune.flavor.graphs import (
)
from edgeprune.flavor.graphs import (
    input_layer as input_layer,
)
from edgeprune.flavor.graphs import (
    input_names as input_names,
)
from edgeprune.flavor.graphs import (
    layer_calls as layer_calls,
)
from edgeprune.flavor.graphs import (
    layer_graph as layer_graph,
)
from edgeprune.flavor.graphs import (
    named_outputs as named_outputs,
)
from edgeprune.flavor.graphs import (
)
from edgeprune.flavor.graphs import (
)
from edgeprune.flavor.graphs import (
    output_layers as output_layers,
)
from edgeprune.flavor.graphs import (
    output_shapes as output_shapes,
)
from edgeprune.flavor.graphs import (
    pack_inputs as pack_inputs,
)
from edgeprune.flavor.graphs import (
    pack_outputs as pack_outputs,
)
from edgeprune.flavor.graphs import (
    producer_of as producer_of,
)
from edgeprune.flavor.kinds import (
    KERAS_3 as KERAS_3,
)
from edgeprune.flavor.kinds import (
    TF_KERAS as TF_KERAS,
)
from edgeprune.flavor.kinds import (
    flatten as flatten,
)
from edgeprune.flavor.kinds import (
    flavor_of as flavor_of,
)
from edgeprune.flavor.kinds import (
    is_graph_model as is_graph_model,
)
from edgeprune.flavor.kinds import (
    is_keras_3 as is_keras_3,
)
from edgeprune.flavor.kinds import (
    is_keras_3_variable as is_keras_3_variable,
)
from edgeprune.flavor.kinds import (
    is_layer as is_layer,
)
from edgeprune.flavor.kinds import (
    is_model as is_model,
)
from edgeprune.flavor.kinds import (
    is_sequential as is_sequential,
)
from edgeprune.flavor.kinds import (
    keras_module as keras_module,
)
from edgeprune.flavor.kinds import (
    keras_of as keras_of,
)
from edgeprune.flavor.kinds import (
    layer_names as layer_names,
)
from edgeprune.flavor.kinds import (
    layers_of as layers_of,
)
from edgeprune.flavor.kinds import (
    map_structure as map_structure,
)
from edgeprune.flavor.kinds import (
)
from edgeprune.flavor.kinds import (
    tf_variable as tf_variable,
)
from edgeprune.flavor.kinds import (
    tf_variables as tf_variables,
)
from edgeprune.flavor.training import (
    CALLBACK_HOOKS as CALLBACK_HOOKS,
)
from edgeprune.flavor.training import (
    callback_class as callback_class,
)
from edgeprune.flavor.training import (
    computing_in_float32 as computing_in_float32,
)
from edgeprune.flavor.training import (
    constrain as constrain,
)
from edgeprune.flavor.training import (
    forget_compiled_step as forget_compiled_step,
)
from edgeprune.flavor.training import (
    moving_averages as moving_averages,
)
