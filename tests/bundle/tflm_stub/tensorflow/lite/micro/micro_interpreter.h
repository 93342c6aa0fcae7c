// A stand-in for tests: an interpreter that has TFLM_RUNNER, a command, run the model. What it does is in the .cc beside,
// which is compiled by itself, as the real library is.
#ifndef STUB_MICRO_INTERPRETER_H_
#define STUB_MICRO_INTERPRETER_H_

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/core/c/common.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {
class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver&, uint8_t* arena, size_t arena_bytes);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteStatus Reset();
  TfLiteTensor* input(size_t number);
  TfLiteTensor* output(size_t number);

 private:
  struct State;
  State* state_;
};
}  // namespace tflite

#endif
