// {{ content.name | c_comment }}: inputs, and the outputs that belong to them. For test_main.cc alone.
#ifndef {{ content.identifier | upper }}_GOLDEN_VECTORS_H_
#define {{ content.identifier | upper }}_GOLDEN_VECTORS_H_

#include <cstdint>

namespace {{ content.identifier }} {

constexpr int kGoldenCount = {{ golden_inputs[0] | length }};
{% for word, ports, arrays in (("Input", inputs, golden_inputs), ("Output", outputs, golden_outputs)) %}
{% for port in ports %}

// {{ port.name | c_comment }}
alignas(16) const {{ port.c_type }} kGolden{{ word }}_{{ port.identifier }}[kGoldenCount][{{ port.elements }}] = {
{% for row in arrays[loop.index0] %}
    {
{{ row | c_array(8) }}
    },
{% endfor %}
};
{% endfor %}
{% endfor %}

}  // namespace {{ content.identifier }}

#endif  // {{ content.identifier | upper }}_GOLDEN_VECTORS_H_
