// {{ content.name | c_comment }}, version {{ content.version | c_comment }}: model.tflite byte by byte, to lie in flash.
#include "model_data.h"

namespace {{ content.identifier }} {

alignas(16) const unsigned char kModelData[kModelBytes] = {
{{ model_bytes | list | c_array }}
};

}  // namespace {{ content.identifier }}
