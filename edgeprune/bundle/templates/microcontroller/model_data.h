// {{ content.name | c_comment }}, version {{ content.version | c_comment }}: the model as the interpreter reads it.
#ifndef {{ content.identifier | upper }}_MODEL_DATA_H_
#define {{ content.identifier | upper }}_MODEL_DATA_H_

namespace {{ content.identifier }} {

constexpr unsigned int kModelBytes = {{ model_bytes | length }};
extern const unsigned char kModelData[kModelBytes];

}  // namespace {{ content.identifier }}

#endif  // {{ content.identifier | upper }}_MODEL_DATA_H_
