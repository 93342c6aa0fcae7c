// The stand-in's library. The command runs as long as the program does. For each inference it gets a line with the arena's size
// and the numbers of inputs and outputs; the model and, for each input, all values since the last Reset lie in files. It
// writes the outputs that belong to the last values to files too, and answers with one byte.
#include "tensorflow/lite/micro/micro_interpreter.h"

#include <sys/socket.h>
#include <unistd.h>

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

// The end of a socket at whose other end the command reads and writes.
int StartRunner() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return -1;
  if (fork() == 0) {
    close(ends[0]);
    dup2(ends[1], STDIN_FILENO);
    dup2(ends[1], STDOUT_FILENO);
    close(ends[1]);
    execl("/bin/sh", "sh", "-c", std::getenv("TFLM_RUNNER"), static_cast<char*>(nullptr));
    _exit(127);
  }
  close(ends[1]);
  return ends[0];
}

bool Run(size_t arena_bytes, size_t inputs, size_t outputs) {
  static const int runner = StartRunner();
  const std::string request =
      std::to_string(arena_bytes) + " " + std::to_string(inputs) + " " + std::to_string(outputs) + "\n";
  char answer;
  return write(runner, request.data(), request.size()) > 0 && read(runner, &answer, 1) == 1;
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
  if (!Run(state_->arena_bytes, state_->inputs.size(), state_->outputs.size())) return kTfLiteError;
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
