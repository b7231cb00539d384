// A network in a session of ONNX Runtime, which reads and writes the memory that it is given.
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
  int type = 0;               // ONNX's number of the element type; 0 for what is not a tensor
  std::vector<int64_t> dims;  // -1 for a free one
  std::vector<std::string> dimNames;
};

using Settings = std::vector<std::pair<std::string, std::string>>;

/// CUDA's execution provider.
struct CudaProvider {
  int device = 0;
  void* stream = nullptr;  // where the network is enqueued
  Settings settings;
};

struct SessionOptions {
  int intraOpThreads = 1, interOpThreads = 1;
  int graphOptimization = 99;  // 0: none, 1: basic, 2: extended, 99: all
  Settings config;             // ONNX Runtime's session configuration entries
  std::optional<CudaProvider> cuda;
};

/// A network's file, or its bytes.
struct Source {
  std::string path;
  const void* bytes = nullptr;
  size_t size = 0;
};

/// Ends a run, of one call or several at once, from another thread.
class Stop {
 public:
  void request();
  bool requested() const { return requested_.load(std::memory_order_relaxed); }

 private:
  friend class Session;
  /// While it lives, request() ends the run of these options.
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
  bool perRow = false;  // dims[0] is the batch
};

/// A batch in calls of at most `width` rows (0: in one call). Where `fill` is not 0, every call has so many, those that
/// lack filled up with copies. States on the provider's device must be of the network's own type and lack none; all is
/// then enqueued on its stream, and nothing waits for it but one call in many.
struct RunParams {
  size_t rows = 0, width = 0, fill = 0;
  bool onDevice = false;
  std::vector<int64_t> dims;  // of the states and of the score
  size_t samplePort = 0, outputPort = 0;
  ConstView sample;
  View out;
  std::vector<InputParams> inputs;
  Backend* backend = nullptr;  // converts states where the network's are of another type
};

/// Some rows of a batch, as a batch.
RunParams rowsOf(const RunParams& p, size_t first, size_t count);

class Session {
 public:
  ~Session();
  static Status load(const Library& library, const Source& source, const SessionOptions& options,
                     std::unique_ptr<Session>* session);

  const Library& library() const { return library_; }
  const std::vector<Port>& inputs() const { return inputs_; }
  const std::vector<Port>& outputs() const { return outputs_; }

  /// From any thread, at once with others. ERR_MODEL, ERR_ABORTED, ERR_MEMORY.
  Status run(const RunParams& p, Stop& stop);

 private:
  struct Bound;
  struct Lane;
  explicit Session(const Library& library);
  Status describe();
  Status portsOf(bool input, std::vector<Port>& ports);
  std::unique_ptr<Lane> takeLane(bool onDevice, Status& status);
  Status call(const RunParams& p, Stop& stop, Lane& lane);
  bool settles();
  Status bind(Lane& lane, Bound& bound, const Port& port, bool input, bool onDevice, void* data, size_t bytes,
              const std::vector<int64_t>& dims);

  const Library& library_;
  SessionHandle session_;
  MemoryInfoHandle host_, device_;
  std::vector<Port> inputs_, outputs_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Lane>> lanes_, deviceLanes_;  // free ones
  /// CUDA's provider has one handle of cuDNN, and one of cuBLAS, for all runs of a session on one stream.
  std::mutex provider_;
  std::unordered_map<std::thread::id, unsigned> unsettled_;  // calls of each thread that nothing waited for
};

/// Runs a tiny network, as the last proof that the table of functions is what it is taken for.
Status selfTest(const Library& library);

}  // namespace score_sde::ort
