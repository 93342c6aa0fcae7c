// A stand-in for tests: an interpreter that has TFLM_RUNNER, a command, run the model.
//
// The command gets the model, an arena's size, the inputs and the outputs as files, and writes the outputs.
#ifndef STUB_MICRO_INTERPRETER_H_
#define STUB_MICRO_INTERPRETER_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "model_config.h"
#include "model_data.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

union TfLitePtrUnion {
  void* data;
};
struct TfLiteTensor {
  TfLitePtrUnion data;
};

namespace tflite {
class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver&, uint8_t* arena, size_t arena_bytes)
      : model_(model), arena_bytes_(arena_bytes) {
    aligned_ = reinterpret_cast<uintptr_t>(model) % 16 == 0 && reinterpret_cast<uintptr_t>(arena) % 16 == 0;
  }
  TfLiteStatus AllocateTensors() {
    for (int i = 0; i < STUB_MODEL::kInputCount; ++i) Add(&inputs_, STUB_MODEL::kInputs[i].elements);
    for (int i = 0; i < STUB_MODEL::kOutputCount; ++i) Add(&outputs_, STUB_MODEL::kOutputs[i].elements);
    return aligned_ ? kTfLiteOk : kTfLiteError;
  }
  TfLiteTensor* input(size_t number) { return &inputs_[number].tensor; }
  TfLiteTensor* output(size_t number) { return &outputs_[number].tensor; }
  size_t arena_used_bytes() const { return arena_bytes_; }
  TfLiteStatus Invoke() {
    const std::string folder = std::getenv("TFLM_FOLDER");
    Write(folder + "/model", model_, STUB_MODEL::kModelBytes);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      Write(folder + "/input" + std::to_string(i), inputs_[i].bytes.data(), inputs_[i].bytes.size());
    }
    const std::string command = std::string(std::getenv("TFLM_RUNNER")) + " " + std::to_string(arena_bytes_);
    if (std::system(command.c_str()) != 0) return kTfLiteError;
    for (size_t i = 0; i < outputs_.size(); ++i) {
      std::FILE* file = std::fopen((folder + "/output" + std::to_string(i)).c_str(), "rb");
      if (file == nullptr) return kTfLiteError;
      const size_t read = std::fread(outputs_[i].bytes.data(), 1, outputs_[i].bytes.size(), file);
      std::fclose(file);
      if (read == 0) return kTfLiteError;
    }
    return kTfLiteOk;
  }

 private:
  struct Tensor {
    std::vector<uint8_t> bytes;
    TfLiteTensor tensor;
  };
  static void Add(std::vector<Tensor>* tensors, int elements) {
    tensors->push_back({std::vector<uint8_t>(8 * elements), {}});
    for (Tensor& tensor : *tensors) tensor.tensor.data.data = tensor.bytes.data();
  }
  static void Write(const std::string& path, const void* data, size_t size) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    std::fwrite(data, 1, size, file);
    std::fclose(file);
  }

  const Model* model_;
  size_t arena_bytes_;
  bool aligned_;
  std::vector<Tensor> inputs_, outputs_;
};
}  // namespace tflite

#endif
