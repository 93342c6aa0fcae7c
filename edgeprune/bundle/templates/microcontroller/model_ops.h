// {{ content.name | c_comment }}: the operators the model uses, and no others, so that no other kernel is linked.
#ifndef {{ content.identifier | upper }}_MODEL_OPS_H_
#define {{ content.identifier | upper }}_MODEL_OPS_H_

// TF_LITE_STATIC_MEMORY changes where the fields of a TfLiteTensor lie, so this code and the library must agree on it.
#if !defined(TF_LITE_STATIC_MEMORY) && !defined(TFLM_WITHOUT_STATIC_MEMORY) && !defined(ARDUINO)
#error "Compile with -DTF_LITE_STATIC_MEMORY, as the library is; where it is not, with -DTFLM_WITHOUT_STATIC_MEMORY."
#endif

#include "model_config.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

// The classes of TensorFlow Lite for Microcontrollers are in tflite, and in newer versions in tflite::micro.
namespace tflite {
namespace micro {}
}  // namespace tflite

namespace {{ content.identifier }} {

namespace tflm {
using namespace ::tflite;
using namespace ::tflite::micro;
}  // namespace tflm

constexpr int kOperatorCount = {{ methods | length }};
using OpResolver = tflm::MicroMutableOpResolver<kOperatorCount>;

inline TfLiteStatus RegisterOps(OpResolver& resolver) {
{% for method in methods %}
  if (resolver.{{ method }}() != kTfLiteOk) return kTfLiteError;
{% endfor %}
  return kTfLiteOk;
}

// Whether the library and this code agree on the layout of tensors: ask after AllocateTensors. Where they do not, every
// value would be read from and written to a wrong place.
inline bool LayoutAgrees(tflm::MicroInterpreter& interpreter) {
{% for word, ports in (("input", inputs), ("output", outputs)) %}
{% for port in ports %}
  if (interpreter.{{ word }}({{ loop.index0 }})->type != {{ port.tflite_type }}) return false;
  if (interpreter.{{ word }}({{ loop.index0 }})->bytes != {{ port.elements }} * sizeof({{ port.c_type }})) return false;
{% endfor %}
{% endfor %}
  return true;
}

}  // namespace {{ content.identifier }}

#endif  // {{ content.identifier | upper }}_MODEL_OPS_H_
