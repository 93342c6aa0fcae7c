// {{ content.name | c_comment }}, version {{ content.version | c_comment }}: its memory, its inputs and its outputs.
#ifndef {{ content.identifier | upper }}_MODEL_CONFIG_H_
#define {{ content.identifier | upper }}_MODEL_CONFIG_H_

#include <cstdint>
#include <limits>

namespace {{ content.identifier }} {

{% if content.target.kind == "npu" %}
// The tensors lie where Vela placed them; what the interpreter keeps is an estimate. The arena to reserve has a margin of
// {{ margin_percent }} %. Where the memory mode has a dedicated SRAM, give the NPU's driver kFastMemoryBytes of it.
constexpr int kFastMemoryBytes = {{ figures.npu.sram_bytes if "Dedicated" in figures.npu.memory_mode else 0 }};
{% else %}
// Measured with the reference kernels on a host with 64 bits. Kernels made for the device (CMSIS-NN) ask for scratch
// buffers besides, so the arena to reserve has a margin of {{ margin_percent }} %.
{% endif %}
constexpr int kArenaBytes = {{ figures.arena.with_margin }};
constexpr int kArenaMinimumBytes = {{ figures.arena.bytes }};
constexpr int kArenaHeadBytes = {{ figures.arena.head }};  // activations
constexpr int kArenaTailBytes = {{ figures.arena.tail }};  // what the interpreter keeps

// An estimate: the model ({{ "{:,}".format(figures.model_bytes) }} bytes) and what the interpreter and its kernels take as a rule.
constexpr int kFlashBytesEstimate = {{ figures.flash_bytes_estimate }};

// A real value is (stored - zero_point) * scale. Where `quantized` is false, the stored value is the real one.
struct TensorInfo {
  const char* name;
  bool quantized;
  float scale;
  int zero_point;
  int elements;
  int dimensions;
  int shape[8];
};

{% for word, ports in (("Input", inputs), ("Output", outputs)) %}
constexpr int k{{ word }}Count = {{ ports | length }};
constexpr TensorInfo k{{ word }}s[k{{ word }}Count] = {
{% for port in ports %}
    {{ "{" }}{{ port.name | c_string }}, {{ "true" if port.quantized else "false" }}, {{ port.scale | c_float }}, {{ port.zero_point }}, {{ port.elements }}, {{ port.shape | length }}, {{ "{" }}{{ port.shape | join(", ") }}{{ "}}" }},
{% endfor %}
};
{% for port in ports %}
// {{ port.name | c_comment }}
constexpr int k{{ word }}Index_{{ port.identifier }} = {{ loop.index0 }};
using {{ word }}Type_{{ port.identifier }} = {{ port.c_type }};
{% endfor %}

{% endfor %}
{% if content.labels %}
constexpr int kLabelCount = {{ content.labels | length }};
constexpr const char* kLabels[kLabelCount] = {
{% for label in content.labels %}
    {{ label | c_string }},
{% endfor %}
};

{% endif %}
{% if content.preprocessing %}
// What was done to raw values before the model, for each channel: (raw - mean) / std.
constexpr int kPreprocessingChannels = {{ content.preprocessing.mean | length }};
constexpr float kPreprocessingMean[kPreprocessingChannels] = {{ "{" }}{{ content.preprocessing.mean | map("c_float") | join(", ") }}};
constexpr float kPreprocessingStd[kPreprocessingChannels] = {{ "{" }}{{ content.preprocessing.std | map("c_float") | join(", ") }}};

{% endif %}
// The integer that is stored for a real value.
template <typename Integer>
inline Integer Quantize(float real, const TensorInfo& info) {
  const int least = std::numeric_limits<Integer>::min();
  const int largest = std::numeric_limits<Integer>::max();
  const float steps = real / info.scale;
  if (!(steps > -65536.0f)) return static_cast<Integer>(least);
  if (steps > 65536.0f) return static_cast<Integer>(largest);
  int whole = static_cast<int>(steps < 0 ? steps - 0.5f : steps + 0.5f) + info.zero_point;
  whole = whole < least ? least : whole > largest ? largest : whole;
  return static_cast<Integer>(whole);
}

// The real value behind a stored integer.
inline float Dequantize(int stored, const TensorInfo& info) {
  return static_cast<float>(stored - info.zero_point) * info.scale;
}

}  // namespace {{ content.identifier }}

#endif  // {{ content.identifier | upper }}_MODEL_CONFIG_H_
