// {{ content.name | c_comment }}: runs the golden vectors and compares every output value. Returns 0 if all are right.
#include <cstdint>
#include <cstring>

#include "golden_vectors.h"
{% include "microcontroller/opening.cc" %}

namespace {
// How many values differ by more than the tolerance.
template <typename Value>
int Mismatches(const void* given, const Value* expected, int count, double tolerance) {
  const Value* values = reinterpret_cast<const Value*>(given);
  int mismatches = 0;
  for (int i = 0; i < count; ++i) {
    const double difference = static_cast<double>(values[i]) - static_cast<double>(expected[i]);
    if (!(difference <= tolerance && -difference <= tolerance)) ++mismatches;
  }
  return mismatches;
}
}  // namespace

int main() {
  model::tflm::MicroInterpreter* interpreter = OpenInterpreter();
  if (interpreter == nullptr) return 1;
  int mismatches = 0;
  for (int sample = 0; sample < model::kGoldenCount; ++sample) {
    // Every sample begins a new sequence: recurrent operators keep a state.
    if (interpreter->Reset() != kTfLiteOk) {
      MicroPrintf("The state could not be reset.");
      return 1;
    }
{% for port in inputs %}
    std::memcpy(interpreter->input({{ loop.index0 }})->data.data, model::kGoldenInput_{{ port.identifier }}[sample],
                sizeof(model::kGoldenInput_{{ port.identifier }}[sample]));
{% endfor %}
    if (interpreter->Invoke() != kTfLiteOk) {
      MicroPrintf("The inference failed.");
      return 1;
    }
{% for port in outputs %}
    mismatches += Mismatches(interpreter->output({{ loop.index0 }})->data.data, model::kGoldenOutput_{{ port.identifier }}[sample],
                             model::kOutputs[{{ loop.index0 }}].elements, {{ tolerance[loop.index0] }});
{% endfor %}
  }
  MicroPrintf("%d samples, %d values differ", model::kGoldenCount, mismatches);
  return mismatches == 0 ? 0 : 1;
}
