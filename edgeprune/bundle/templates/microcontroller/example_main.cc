// {{ content.name | c_comment }}: one inference. Put your sensor's values where the zeros are.
#include <cstdint>

{% include "microcontroller/opening.cc" %}

int main() {
  model::tflm::MicroInterpreter* interpreter = OpenInterpreter();
  if (interpreter == nullptr) return 1;
{% for port in inputs %}

  // {{ port.name | c_comment }}: {{ port.shape | join(" x ") }}{% if content.preprocessing %}, normalised as in model_config.h{% endif %}

  {
    auto* values = reinterpret_cast<{{ port.c_type }}*>(interpreter->input({{ loop.index0 }})->data.data);
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
{% if stateful %}

  // The model keeps a state from one inference to the next. This begins a new sequence: call it before each window of
  // values that stands for itself, as those the model was trained on; leave it out to go on from the last window.
  if (interpreter->Reset() != kTfLiteOk) {
    MicroPrintf("The state could not be reset.");
    return 1;
  }
{% endif %}

  if (interpreter->Invoke() != kTfLiteOk) {
    MicroPrintf("The inference failed.");
    return 1;
  }
{% for port in outputs %}

  // {{ port.name | c_comment }}
  {
    const auto* values = reinterpret_cast<const {{ port.c_type }}*>(interpreter->output({{ loop.index0 }})->data.data);
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
