// {{ content.name | c_comment }}: one inference. Put your sensor's values where the zeros are.
#include <cstdint>

#include "model_config.h"
#include "model_data.h"
#include "model_ops.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {
namespace model = {{ content.identifier }};

alignas(16) uint8_t arena[model::kArenaBytes];
}  // namespace

int main() {
  model::tflm::InitializeTarget();
  static model::OpResolver resolver;
  if (model::RegisterOps(resolver) != kTfLiteOk) return 1;
  static model::tflm::MicroInterpreter interpreter(
      model::tflm::GetModel(model::kModelData), resolver, arena, model::kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("The arena is too small.");
    return 1;
  }
{% for port in inputs %}

  // {{ port.name | c_comment }}: {{ port.shape | join(" x ") }}{% if content.preprocessing %}, normalised as in model_config.h{% endif %}

  {
    auto* values = reinterpret_cast<{{ port.c_type }}*>(interpreter.input({{ loop.index0 }})->data.data);
    const model::TensorInfo& info = model::kInputs[{{ loop.index0 }}];
    for (int i = 0; i < info.elements; ++i) {
      const float real = 0.0f;
{% if port.quantized %}
      values[i] = model::Quantize<{{ port.c_type }}>(real, info);
{% else %}
      values[i] = static_cast<{{ port.c_type }}>(real);
{% endif %}
    }
  }
{% endfor %}

  if (interpreter.Invoke() != kTfLiteOk) {
    MicroPrintf("The inference failed.");
    return 1;
  }
{% for port in outputs %}

  // {{ port.name | c_comment }}
  {
    const auto* values = reinterpret_cast<const {{ port.c_type }}*>(interpreter.output({{ loop.index0 }})->data.data);
    const model::TensorInfo& info = model::kOutputs[{{ loop.index0 }}];
    int best = 0;
    for (int i = 1; i < info.elements; ++i) {
      if (values[i] > values[best]) best = i;
    }
{% if content.labels and port.elements == content.labels | length %}
    MicroPrintf("%s: %s", info.name, model::kLabels[best]);
{% else %}
    MicroPrintf("%s: the largest value is number %d of %d", info.name, best, info.elements);
{% endif %}
  }
{% endfor %}
  return 0;
}
