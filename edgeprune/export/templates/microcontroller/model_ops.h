// {{ content.name | c_comment }}: the operators the model uses, and no others, so that no other kernel is linked.
#ifndef {{ content.identifier | upper }}_MODEL_OPS_H_
#define {{ content.identifier | upper }}_MODEL_OPS_H_

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

}  // namespace {{ content.identifier }}

#endif  // {{ content.identifier | upper }}_MODEL_OPS_H_
