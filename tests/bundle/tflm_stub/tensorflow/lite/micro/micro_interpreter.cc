// The stand-in's library. The command gets the model, the arena's size and, for each input, all values since the last
// Reset, and writes the outputs that belong to the last ones.
#include "tensorflow/lite/micro/micro_interpreter.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "model_config.h"
#include "model_data.h"

namespace tflite {
namespace {
struct Port {
  std::vector<uint8_t> values;
  std::vector<uint8_t> history;
  TfLiteTensor tensor;
};

void Add(std::vector<Port>* ports, const STUB_MODEL::TensorInfo& info, TfLiteType type) {
  const size_t size = type == kTfLiteInt8 || type == kTfLiteUInt8 ? 1 : type == kTfLiteInt16 ? 2 : 4;
  ports->push_back({});
  Port& port = ports->back();
  port.values.resize(size * info.elements);
  port.tensor.type = type;
  port.tensor.bytes = port.values.size();
  port.tensor.quantization.type = info.quantized ? kTfLiteAffineQuantization : kTfLiteNoQuantization;
  port.tensor.allocation_type = kTfLiteArenaRw;
  for (Port& one : *ports) one.tensor.data.data = one.values.data();
}

void Write(const std::string& path, const void* data, size_t size) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  std::fwrite(data, 1, size, file);
  std::fclose(file);
}
}  // namespace

struct MicroInterpreter::State {
  const Model* model;
  size_t arena_bytes;
  bool aligned;
  std::vector<Port> inputs, outputs;
};

MicroInterpreter::MicroInterpreter(const Model* model, const MicroOpResolver&, uint8_t* arena, size_t arena_bytes)
    : state_(new State{model, arena_bytes, true, {}, {}}) {
  state_->aligned = reinterpret_cast<uintptr_t>(model) % 16 == 0 && reinterpret_cast<uintptr_t>(arena) % 16 == 0;
}

TfLiteStatus MicroInterpreter::AllocateTensors() {
  const TfLiteType inputs[] = {STUB_INPUT_TYPES}, outputs[] = {STUB_OUTPUT_TYPES};
  for (int i = 0; i < STUB_MODEL::kInputCount; ++i) Add(&state_->inputs, STUB_MODEL::kInputs[i], inputs[i]);
  for (int i = 0; i < STUB_MODEL::kOutputCount; ++i) Add(&state_->outputs, STUB_MODEL::kOutputs[i], outputs[i]);
  return state_->aligned ? kTfLiteOk : kTfLiteError;
}

TfLiteTensor* MicroInterpreter::input(size_t number) { return &state_->inputs[number].tensor; }
TfLiteTensor* MicroInterpreter::output(size_t number) { return &state_->outputs[number].tensor; }

TfLiteStatus MicroInterpreter::Reset() {
  for (Port& port : state_->inputs) port.history.clear();
  return kTfLiteOk;
}

TfLiteStatus MicroInterpreter::Invoke() {
  const std::string folder = std::getenv("TFLM_FOLDER");
  Write(folder + "/model", state_->model, STUB_MODEL::kModelBytes);
  for (size_t i = 0; i < state_->inputs.size(); ++i) {
    Port& port = state_->inputs[i];
    port.history.insert(port.history.end(), port.values.begin(), port.values.end());
    Write(folder + "/input" + std::to_string(i), port.history.data(), port.history.size());
  }
  const std::string command = std::string(std::getenv("TFLM_RUNNER")) + " " + std::to_string(state_->arena_bytes);
  if (std::system(command.c_str()) != 0) return kTfLiteError;
  for (size_t i = 0; i < state_->outputs.size(); ++i) {
    std::vector<uint8_t>& values = state_->outputs[i].values;
    std::FILE* file = std::fopen((folder + "/output" + std::to_string(i)).c_str(), "rb");
    if (file == nullptr) return kTfLiteError;
    const size_t read = std::fread(values.data(), 1, values.size(), file);
    std::fclose(file);
    if (read != values.size()) return kTfLiteError;
  }
  return kTfLiteOk;
}
}  // namespace tflite
