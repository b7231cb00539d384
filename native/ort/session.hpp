// A network in a session of ONNX Runtime. It reads and writes the caller's memory in place.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/backend.hpp"
#include "ort/library.hpp"

namespace score_sde::ort {

/// An input or output of a network.
struct Port {
  std::string name;
  int type = 0;               // ONNX's number of the element type; 0: not a tensor
  std::vector<int64_t> dims;  // -1: a free size
  std::vector<std::string> dimNames;
};

using Settings = std::vector<std::pair<std::string, std::string>>;

/// The CUDA execution provider.
struct CudaProvider {
  int device = 0;
  void* stream = nullptr;  // the cudaStream_t that the network runs on
  Settings settings;
};

struct SessionOptions {
  int intraOpThreads = 1, interOpThreads = 1;
  int graphOptimization = 99;                          // 0: none, 1: basic, 2: extended, 99: all
  bool parallel = false;                               // operators that do not depend on each other run at once
  bool memoryPattern = true;                           // the memory of a run is planned from the run before
  bool cpuArena = true;                                // memory is kept for the next run
  int logSeverity = 4;                                 // 0: verbose, 1: info, 2: warning, 3: error, 4: fatal
  std::vector<std::pair<std::string, int64_t>> sizes;  // of free dims, by their names
  std::string optimizedPath;                           // where the rewritten graph goes; empty: nowhere
  std::string profilePrefix;                           // how the profile's file begins; empty: none
  Settings config;                                     // ONNX Runtime's session configuration entries
  std::optional<CudaProvider> cuda;
};

/// Weights that a network has in a file beside it, by that file's name.
struct ExternalFile {
  std::string name;
  const void* bytes = nullptr;
  size_t size = 0;
};

/// A network's file, or its bytes.
struct Source {
  std::string path;
  const void* bytes = nullptr;
  size_t size = 0;
  std::vector<ExternalFile> external;  // in place of the files
};

/// Stops a run from another thread. A run may be several calls of the network at once.
class Stop {
 public:
  void request();
  bool requested() const { return requested_.load(std::memory_order_relaxed); }

 private:
  friend class Session;
  /// While it lives, request() stops the call with these options.
  class Scope {
   public:
    Scope(Stop& stop, const Api& api, OrtRunOptions* options);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Stop& stop_;
    OrtRunOptions* const options_;
  };

  std::atomic<bool> requested_{false};
  std::mutex mutex_;
  const Api* api_ = nullptr;
  std::vector<OrtRunOptions*> running_;
};

/// A value of one input.
struct InputParams {
  size_t port = 0;
  const void* data = nullptr;  // of the port's type
  size_t bytes = 0;
  std::vector<int64_t> dims;
  bool perRow = false;  // dims[0] is the number of rows
};

/// A batch in calls of at most `perCall` rows (0: one call). If `fill` is not 0, every call has `fill` rows: copies of
/// its last row fill it up. States on the provider's device must have the network's element type, and fill every call.
/// Calls on a device are enqueued on its stream; the host waits only in one call of many.
struct RunParams {
  size_t rows = 0, perCall = 0, fill = 0;
  bool onDevice = false;
  std::vector<int64_t> dims;  // of the states and of the score
  size_t samplePort = 0, outputPort = 0;
  ConstView sample;
  View out;
  std::vector<InputParams> inputs;
  Backend* backend = nullptr;  // converts states to and from the network's element type
};

/// The batch of `count` rows from row `first` on.
RunParams rowsOf(const RunParams& p, size_t first, size_t count);

class Session {
 public:
  ~Session();
  static Status load(const Library& library, const Source& source, const SessionOptions& options,
                     std::unique_ptr<Session>* session);

  const Library& library() const { return library_; }
  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }

  /// Several threads may run at once. ERR_MODEL, ERR_ABORTED, ERR_MEMORY.
  Status run(const RunParams& p, Stop& stop);

 private:
  struct Bound;
  struct Workspace;
  explicit Session(const Library& library);
  Status describe();
  Status portsOf(bool input, std::vector<Port>& ports);
  std::unique_ptr<Workspace> acquire(bool onDevice, Status& status);
  Status run(const RunParams& p, Stop& stop, Workspace& workspace);
  bool waitsForDevice();
  Status bind(Workspace& workspace, Bound& bound, const Port& port, bool input, bool onDevice, void* data, size_t bytes,
              const std::vector<int64_t>& dims);

  const Library& library_;
  SessionHandle session_;
  MemoryInfoHandle host_, device_;
  std::vector<Port> inputs_, outputs_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_, freeOnDevice_;
  /// Held during a call on CUDA: the provider has one cuDNN and one cuBLAS handle for all calls of a session.
  std::mutex provider_;
  std::unordered_map<std::thread::id, unsigned> deviceCalls_;  // calls on a device, by thread; guarded by provider_
};

/// Runs a tiny network: the last check that the table of functions is ONNX Runtime's.
Status selfTest(const Library& library);

}  // namespace score_sde::ort
