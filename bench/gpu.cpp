// The kernels on a GPU beside its memory's speed: each step in a stream and in a captured graph, whose scalars lie in
// the device's memory, with the L2 cache flushed and warm, beside the bytes it must move at the rate of a
// device-to-device copy measured in the same run. Prints one line of JSON a case; "brief" takes small ones. See
// bench/README.md.
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "cuda/device.hpp"

using namespace score_sde;

namespace {

std::shared_ptr<cuda::Context> context;
cudaStream_t stream;
cudaEvent_t start, stop;
int rounds = 30;

void check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", status.code, status.message.c_str());
  std::exit(1);
}

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

std::shared_ptr<cuda::Buffer> memory(size_t bytes) {
  std::shared_ptr<cuda::Buffer> buffer;
  check(context->allocate(bytes, buffer));
  check(context->fill(buffer->data, 0, bytes));
  return buffer;
}

/// Microseconds of work(), the median of the rounds; `before` runs outside of what is timed.
double timed(const std::function<void()>& before, const std::function<void()>& work, int calls) {
  std::vector<float> times;
  for (int i = 0; i < rounds; ++i) {
    before();
    check(cudaEventRecord(start, stream));
    for (int k = 0; k < calls; ++k) work();
    check(cudaEventRecord(stop, stream));
    check(cudaEventSynchronize(stop));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start, stop));
    times.push_back(milliseconds);
  }
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return 1000.0 * times[times.size() / 2] / calls;
}

struct Case {
  const char* name;
  Shape shape;
};

/// What changes from step to step, in the device's memory, so that one graph serves all of them.
struct Scalars {
  PhiloxStream stream;
  float sigma, adjacent, snr;
};
constexpr int kSteps = 20;

/// The two steps of a batch; with its scalars in the launch, or, where `scalars` is given, in memory.
class Steps {
 public:
  /// With a stream of noise for each sample where `each` says so.
  Steps(const Case& c, Dtype type, bool each = false) : bytes(c.shape.size() * sizeOf(type)) {
    RandnParams fill;
    fill.shape = c.shape;
    fill.noise.kind = Noise::Kind::Philox;
    fill.noise.type = type;
    fill.noise.philox = {{7, 0}};
    for (const auto& buffer : {sample_, score_}) {
      fill.out = {buffer->data, type};
      check(context->backend().randn(fill));
    }
    pred_.shape = correct_.shape = c.shape;
    pred_.sample = correct_.sample = {sample_->data, type};
    pred_.modelOutput = correct_.modelOutput = {score_->data, type};
    pred_.out = correct_.out = {out_->data, type};
    pred_.noise = correct_.noise = fill.noise;
    for (uint64_t row = 1; each && row < c.shape.rows; ++row) {
      pred_.noise.philox.push_back({7 + row, 0});
      correct_.noise.philox.push_back({7 + row, 0});
    }
    correct_.noise.type = Dtype::Float32;
    pred_.sigma.values = {2.0f};
    pred_.adjacentSigma.values = {1.9f};
    correct_.snr.values = {0.15f};
  }

  void run(bool correct, Scalars* scalars = nullptr) const {
    StepPredParams p = pred_;
    StepCorrectParams q = correct_;
    if (scalars != nullptr) {
      p.noise.device = q.noise.device = &scalars->stream;
      p.noise.deviceStreams = q.noise.deviceStreams = 1;
      p.sigma.device = &scalars->sigma;
      p.adjacentSigma.device = &scalars->adjacent;
      q.snr.device = &scalars->snr;
    }
    check(correct ? context->backend().stepCorrect(q, nullptr) : context->backend().stepPred(p, nullptr));
  }

  const size_t bytes;  // of a tensor

 private:
  const std::shared_ptr<cuda::Buffer> sample_ = memory(bytes), score_ = memory(bytes), out_ = memory(bytes);
  StepPredParams pred_;
  StepCorrectParams correct_;
};

/// What work() enqueues, captured.
class Graph {
 public:
  explicit Graph(const std::function<void()>& work) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    check(cudaStreamEndCapture(stream, &graph_));
    check(cudaGraphGetNodes(graph_, nullptr, &nodes));
    check(cudaGraphInstantiate(&replay_, graph_, 0));
  }
  ~Graph() {
    cudaGraphExecDestroy(replay_);
    cudaGraphDestroy(graph_);
  }
  Graph(const Graph&) = delete;
  void launch() const { check(cudaGraphLaunch(replay_, stream)); }

  size_t nodes = 0;

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t replay_ = nullptr;
};

/// One step beside the bytes that it must move: score, sample and result once.
void measure(const Case& c, Dtype type, bool correct, double bytesPerSecond, const std::function<void()>& flush,
             Scalars* scalars) {
  const Steps steps(c, type);
  const std::function<void()> work = [&] { steps.run(correct); };
  work();
  const Graph one([&] { steps.run(correct, scalars); });
  const Graph many([&] {
    for (int i = 0; i < kSteps; ++i) steps.run(correct, scalars);
  });
  const auto nothing = [] {};
  const double bound = 1e6 * 3.0 * static_cast<double>(steps.bytes) / bytesPerSecond;
  const double flushed = timed(flush, work, 1), warm = timed(nothing, work, kSteps);
  const double graphFlushed = timed(
      flush, [&] { one.launch(); }, 1);
  const double graphWarm = timed(
                               nothing, [&] { many.launch(); }, 1) /
                           kSteps;
  std::printf(
      "{\"op\":\"%s\",\"case\":\"%s\",\"type\":\"%s\",\"launches\":%zu,\"bound_us\":%.2f,\"stream_flushed_us\":%.2f,"
      "\"stream_warm_us\":%.2f,\"graph_flushed_us\":%.2f,\"graph_warm_us\":%.2f,\"flushed_ratio\":%.3f}\n",
      correct ? "stepCorrect" : "stepPred", c.name, type == Dtype::Float32 ? "float32" : "bfloat16", one.nodes, bound,
      flushed, warm, graphFlushed, graphWarm, flushed / bound);
}

/// A corrector and a predictor as one graph, replayed for step after step with the scalars of each; and whether the
/// host waits for the device on the way: it is let through the steps while the stream stands still before them. In the
/// stream each sample has its own noise, whose state, for more than 64 of them, is copied to the device with each call.
void loop(const Case& c, Scalars* scalars, const Scalars* table) {
  const Steps steps(c, Dtype::Float32);
  steps.run(true);
  const Graph graph([&] {
    steps.run(true, scalars);
    steps.run(false, scalars);
  });
  int at = 0;
  const auto step = [&] {
    check(context->copy(scalars, table + at++ % kSteps, sizeof *scalars));
    graph.launch();
  };
  const double each = timed([] {}, step, kSteps);
  const auto waits = [&](const std::function<void()>& work) {
    static std::atomic<bool> open;
    open = false;
    check(cudaStreamSynchronize(stream));
    check(cudaLaunchHostFunc(
        stream,
        [](void*) {
          // Not for ever: a host that waits for what comes after would never open.
          for (int i = 0; i < 2000 && !open; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        },
        nullptr));
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kSteps; ++i) work();
    const bool waited = std::chrono::steady_clock::now() - start > std::chrono::seconds(1);
    open = true;
    check(cudaStreamSynchronize(stream));
    return waited ? "true" : "false";
  };
  const char* const replayed = waits(step);
  const Steps seeded(c, Dtype::Float32, true);
  const char* const called = waits([&] {
    seeded.run(true);
    seeded.run(false);
  });
  std::printf(
      "{\"op\":\"loop\",\"case\":\"%s\",\"type\":\"float32\",\"step_us\":%.2f,\"host_waits\":%s,"
      "\"host_waits_in_stream\":%s}\n",
      c.name, each, replayed, called);
}

}  // namespace

int main(int argc, char** argv) {
  const bool brief = argc > 1 && std::strcmp(argv[1], "brief") == 0;
  if (brief) rounds = 3;
  check(cuda::open(0, context));
  check(cudaSetDevice(0));
  stream = reinterpret_cast<cudaStream_t>(context->stream());
  check(cudaEventCreate(&start));
  check(cudaEventCreate(&stop));
  const size_t coldBytes = brief ? size_t{1} << 20 : size_t{1} << 28;
  const auto a = memory(coldBytes), b = memory(coldBytes);
  const double copied = timed([] {}, [&] { check(context->copy(b->data, a->data, coldBytes)); }, 1);
  const double bytesPerSecond = 2e6 * static_cast<double>(coldBytes) / copied;
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0));
  std::printf("{\"device\":\"%s\",\"copy_GB_per_s\":%.1f}\n", properties.name, bytesPerSecond / 1e9);
  const auto flush = [&] { check(cudaMemsetAsync(a->data, 1, coldBytes, stream)); };
  std::vector<Scalars> each;
  for (int i = 0; i < kSteps; ++i) each.push_back({{7, uint64_t(i) << 32}, 2.0f - 0.05f * i, 1.95f - 0.05f * i, 0.15f});
  const auto now = memory(sizeof(Scalars)), table = memory(each.size() * sizeof(Scalars));
  check(context->upload(now->data, each.data(), sizeof(Scalars)));
  check(context->upload(table->data, each.data(), each.size() * sizeof(Scalars)));
  auto* const scalars = static_cast<Scalars*>(now->data);
  const Case cases[] = {{"16x3x32x32", {16, 3 * 32 * 32}},     {"64x3x32x32", {64, 3 * 32 * 32}},
                        {"256x3x32x32", {256, 3 * 32 * 32}},   {"8x3x256x256", {8, 3 * 256 * 256}},
                        {"16x3x256x256", {16, 3 * 256 * 256}}, {"4x3x1024x1024", {4, 3 * 1024 * 1024}}};
  for (const Case& c : cases) {
    if (brief && c.shape.size() > 16 * 4096) continue;
    for (const Dtype type : {Dtype::Float32, Dtype::Bfloat16})
      for (const bool correct : {false, true}) measure(c, type, correct, bytesPerSecond, flush, scalars);
    loop(c, scalars, static_cast<Scalars*>(table->data));
  }
  return 0;
}
