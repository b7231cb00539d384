// The kernels on a GPU beside its memory's speed: each step in a stream and in a captured graph, whose scalars lie in
// the device's memory, with the L2 cache flushed by reading other memory and warm, beside the bytes it must move at the
// rate of a device-to-device copy measured in the same run. Prints one line of JSON a case; "brief" takes small ones.
// See bench/README.md.
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

#include "cuda/device.hpp"
#include "read.hpp"

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

enum class Op { StepPred, StepCorrect, Linear1, Linear2, Linear3 };
constexpr Op kOps[] = {Op::StepPred, Op::StepCorrect, Op::Linear1, Op::Linear2, Op::Linear3};
const char* const kNames[] = {"stepPred", "stepCorrect", "linear1", "linear2", "linear3"};
/// What it must move: x, m and x', and above order 1 the values pushed before and its own.
constexpr size_t kTensors[] = {3, 3, 3, 5, 6};

/// The record of every row: a predictor's, a corrector's, or that of a multistep solver without noise, whose network
/// tells the noise.
RowStep recordOf(Op op) {
  RowStep row;
  if (op == Op::StepPred || op == Op::StepCorrect) {
    row.kind = op == Op::StepPred ? RowStep::Kind::Predict : RowStep::Kind::Correct;
    row.normals = RowStep::Normals::Drawn;
    row.sigma = 2.0f;
    row.next = 1.9f;
    row.snr = 0.15f;
    return row;
  }
  row.terms = op == Op::Linear1 ? 1 : op == Op::Linear2 ? 2 : 3;
  row.converts = true;
  row.px = 1.0f;
  row.pm = -2.0f;
  row.a = 0.9f;
  for (int k = 0; k < row.terms; ++k) row.b[k] = 0.1f / static_cast<float>(k + 1);
  return row;
}

/// What changes from step to step, in the device's memory, so that one graph serves all of them.
struct Scalars {
  PhiloxStream stream;
  RowStep rows[std::size(kOps)];
};
constexpr int kSteps = 20;

/// The steps of a batch; with their records in the launch, or, where `scalars` is given, in memory.
class Steps {
 public:
  /// With a stream of noise for each sample where `each` says so.
  Steps(const Case& c, Dtype type, bool each = false) : bytes(c.shape.size() * sizeOf(type)) {
    RandnParams fill;
    fill.shape = c.shape;
    fill.noise.kind = Noise::Kind::Philox;
    fill.noise.type = type;
    fill.noise.philox = {{7, 0}};
    for (const auto& buffer : {sample_, output_, before_[0], before_[1]}) {
      fill.out = {buffer->data, type};
      check(context->backend().randn(fill));
    }
    params_.shape = c.shape;
    params_.sample = {sample_->data, type};
    params_.output = {output_->data, type};
    params_.out = {out_->data, type};
    for (size_t k = 0; k < 2; ++k) params_.history[k] = {before_[k]->data, type};
    params_.noise = fill.noise;
    for (uint64_t row = 1; each && row < c.shape.rows; ++row) params_.noise.philox.push_back({7 + row, 0});
  }

  void run(Op op, const Scalars* scalars = nullptr) const {
    StepParams p = params_;
    p.rows = {recordOf(op)};
    if (op == Op::StepCorrect) p.noise.type = Dtype::Float32;
    // The oldest value that is read gives its place to the new one.
    if (p.rows[0].terms > 1) p.pushed = {before_[p.rows[0].terms - 2u]->data, p.out.type};
    if (scalars != nullptr) {
      p.noise.device = &scalars->stream;
      p.noise.deviceStreams = 1;
      p.device = &scalars->rows[static_cast<size_t>(op)];
      p.deviceRows = 1;
    }
    check(context->backend().step(p, nullptr));
  }

  const size_t bytes;  // of a tensor

 private:
  const std::shared_ptr<cuda::Buffer> sample_ = memory(bytes), output_ = memory(bytes), out_ = memory(bytes);
  const std::shared_ptr<cuda::Buffer> before_[2] = {memory(bytes), memory(bytes)};
  StepParams params_;
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

/// One step beside the bytes that it must move: each operand and result once.
void measure(const Case& c, Dtype type, Op op, double bytesPerSecond, const std::function<void()>& flush,
             Scalars* scalars) {
  const Steps steps(c, type);
  const std::function<void()> work = [&] { steps.run(op); };
  work();
  const Graph one([&] { steps.run(op, scalars); });
  const Graph many([&] {
    for (int i = 0; i < kSteps; ++i) steps.run(op, scalars);
  });
  const auto nothing = [] {};
  const size_t tensors = kTensors[static_cast<size_t>(op)];
  const double bound = 1e6 * static_cast<double>(tensors * steps.bytes) / bytesPerSecond;
  const double flushed = timed(flush, work, 1), warm = timed(nothing, work, kSteps);
  const double graphFlushed = timed(
      flush, [&] { one.launch(); }, 1);
  const double graphWarm = timed(
                               nothing, [&] { many.launch(); }, 1) /
                           kSteps;
  std::printf(
      "{\"op\":\"%s\",\"case\":\"%s\",\"type\":\"%s\",\"launches\":%zu,\"tensors\":%zu,\"bound_us\":%.2f,\"stream_"
      "flushed_us\":%.2f,"
      "\"stream_warm_us\":%.2f,\"graph_flushed_us\":%.2f,\"graph_warm_us\":%.2f,\"flushed_ratio\":%.3f}\n",
      kNames[static_cast<size_t>(op)], c.name, type == Dtype::Float32 ? "float32" : "bfloat16", one.nodes, tensors,
      bound, flushed, warm, graphFlushed, graphWarm, flushed / bound);
}

/// A corrector and a predictor as one graph, replayed for step after step with the scalars of each; and whether the
/// host waits for the device on the way: it is let through the steps while the stream stands still before them. In the
/// stream each sample has its own noise, whose state, for more than 64 of them, is copied to the device with each call.
void loop(const Case& c, Scalars* scalars, const Scalars* table) {
  const Steps steps(c, Dtype::Float32);
  steps.run(Op::StepCorrect);
  const Graph graph([&] {
    steps.run(Op::StepCorrect, scalars);
    steps.run(Op::StepPred, scalars);
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
    seeded.run(Op::StepCorrect);
    seeded.run(Op::StepPred);
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
  // Of `a`, which memory() cleared; what the steps before wrote leaves the cache on the way.
  const auto found = memory(sizeof(uint32_t));
  const auto flush = [&] { check(readZeros(a->data, coldBytes, static_cast<uint32_t*>(found->data), stream)); };
  std::vector<Scalars> each;
  for (int i = 0; i < kSteps; ++i) {
    Scalars& scalars = each.emplace_back();
    scalars.stream = {7, static_cast<uint64_t>(i) << 32};
    for (const Op op : kOps) {
      RowStep& row = scalars.rows[static_cast<size_t>(op)] = recordOf(op);
      row.sigma = 2.0f - 0.05f * static_cast<float>(i);
      row.next = 1.95f - 0.05f * static_cast<float>(i);
    }
  }
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
      for (const Op op : kOps) measure(c, type, op, bytesPerSecond, flush, scalars);
    loop(c, scalars, static_cast<Scalars*>(table->data));
  }
  return 0;
}
