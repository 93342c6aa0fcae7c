#include "model_config.h"
#include "model_data.h"
#include "model_ops.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {
namespace model = {{ content.identifier }};

{% if content.target.kind == "npu" %}
// The NPU reads and writes it: place it where the memory mode wants it, with your linker script.
{% endif %}
alignas(16) uint8_t arena[model::kArenaBytes];

// The interpreter, ready to run; a null pointer where that fails.
model::tflm::MicroInterpreter* OpenInterpreter() {
  model::tflm::InitializeTarget();
  static model::OpResolver resolver;
  if (model::RegisterOps(resolver) != kTfLiteOk) return nullptr;
  static model::tflm::MicroInterpreter interpreter(
      model::tflm::GetModel(model::kModelData), resolver, arena, model::kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("AllocateTensors failed: see the line above. Where it says that memory is missing, the arena is too small.");
    return nullptr;
  }
  if (!model::LayoutAgrees(interpreter)) {
    MicroPrintf("The library was compiled with other options than this code: make TF_LITE_STATIC_MEMORY the same in both.");
    return nullptr;
  }
  return &interpreter;
}
}  // namespace
