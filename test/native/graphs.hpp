// Steps in captured graphs, and after captures.
#pragma once

#include <cstring>

#include "steps.hpp"

namespace score_sde::parity {

/// What work() enqueues, captured.
class Graph {
 public:
  Graph(cudaStreamCaptureMode mode, const std::function<void()>& work)
      : stream_(reinterpret_cast<cudaStream_t>(context->stream())) {
    call(cudaStreamBeginCapture(stream_, mode));
    work();
    call(cudaStreamEndCapture(stream_, &graph_));
    call(cudaGraphInstantiate(&replay_, graph_, 0));
  }
  ~Graph() {
    cudaGraphExecDestroy(replay_);
    cudaGraphDestroy(graph_);
  }
  Graph(const Graph&) = delete;
  void launch() const {
    call(cudaGraphLaunch(replay_, stream_));
    call(cudaStreamSynchronize(stream_));
  }

 private:
  static void call(cudaError_t error) {
    if (error != cudaSuccess) fail(std::string("a graph: ") + cudaGetErrorName(error));
  }
  const cudaStream_t stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t replay_ = nullptr;
};

/// A graph whose records and streams lie in device memory, replayed with others of the same kinds.
inline void replayed(const std::string& name, const Case& c, const std::function<std::vector<RowStep>()>& next) {
  label = "graph of " + name + " " + show(c);
  std::vector<RowStep> rows = next();
  Operands o(c, kTerms);
  std::vector<PhiloxStream> streams = streamsOf(c);
  Uploaded<RowStep> records(rows);
  Uploaded<PhiloxStream> places(streams);
  const Wanted wanted{.mean = true, .pushed = true};
  StepParams p = paramsOf(c, rows, wanted, o, Place::Device);
  p.device = records.data();
  p.deviceRows = rows.size();
  if (p.noise.kind == Noise::Kind::Philox) {
    p.noise.device = places.data();
    p.noise.deviceStreams = streams.size();
  }
  const Graph graph(cudaStreamCaptureModeThreadLocal, [&] { check(context->backend().step(p, nullptr)); });
  for (int turn = 0; turn < 3; ++turn) {
    for (RowStep& row : rows) {
      row.sigma += 0.25f;
      row.snr *= 1.1f;
      row.a *= 0.9f;
      row.e += 0.1f;
    }
    for (PhiloxStream& stream : streams) stream.counter += 4000;
    records.set(rows);
    places.set(streams);
    graph.launch();
    StepParams host = paramsOf(c, rows, wanted, o, Place::Host);
    if (host.noise.kind == Noise::Kind::Philox) host.noise.philox = streams;
    check(cpu::backend().step(host, nullptr));
    compareAll(o);
  }
}

/// A context's first steps are captured, and the graph is not launched: steps afterwards are as ever, and the graph
/// then.
inline void capturedFirst(cudaStreamCaptureMode mode, const Case& c, const std::vector<RowStep>& rows) {
  context.reset();
  check(cuda::open(0, context));
  label = "captured first " + show(c);
  Operands o(c, kTerms), later(c, kTerms);
  const Graph graph(mode, [&] {
    check(context->backend().step(paramsOf(c, rows, {}, later, Place::Device), nullptr));
    check(context->backend().step(paramsOf(c, rows, {}, later, Place::Device), nullptr));
  });
  for (const Place place : {Place::Host, Place::Device})
    check(on(place).step(paramsOf(c, rows, {}, o, place), nullptr));
  compareAll(o);
  check(cpu::backend().step(paramsOf(c, rows, {}, later, Place::Host), nullptr));
  graph.launch();
  compareAll(later);
}

/// While a stream is captured: memory is given back to be used again after the work of another stream, and other
/// contexts take memory where that is short, as the captured one does. The graph is as if none of it had been.
inline void aroundCaptures() {
  label = "around a capture";
  const Case c{{2, 500}, Dtype::Float32, Dtype::Float32, Dtype::Float32};
  const std::vector<RowStep> rows = rowsOf(c, [&] { return anyRow(c, 0); });
  constexpr size_t kLarge = size_t{3} << 20;
  context.reset();
  setenv("EMULATED_MEMORY", std::to_string(2 * kLarge).c_str(), 1);
  check(cuda::open(0, context));
  std::shared_ptr<cuda::Context> other;
  check(cuda::open(0, other));
  // Each keeps a block, and then no third one of another size fits, where memory can be made short.
  std::shared_ptr<cuda::Buffer> kept;
  const auto keep = [&](cuda::Context& of) {
    check(of.allocate(kLarge - (size_t{1} << 18), kept));
    kept.reset();
  };
  {
    Operands o(c, kTerms);
    keep(*context);
    keep(*other);
    std::shared_ptr<cuda::Buffer> lent;
    constexpr size_t kLent = 1000;
    check(context->allocate(kLent, lent));
    const void* const lentAt = lent->data;
    const auto takes = [&](cuda::Context& of, size_t bytes) {
      std::shared_ptr<cuda::Buffer> taken;
      return of.allocate(bytes, taken).ok();
    };
    const Graph graph(cudaStreamCaptureModeThreadLocal, [&] {
      check(context->backend().step(paramsOf(c, rows, {}, o, Place::Device), nullptr));
      check(context->reuseAfter(1));  // cudaStreamLegacy
      check(context->reuseAfter(other->stream()));
      lent.reset();
      check(context->allocate(kLent, lent));
      if (lent->data == lentAt) fail("took memory in a capture that another stream may still use");
      const auto done = [](void*, Status) { fail("tells what a graph will do"); };
      const auto isRefused = [](const Status& status) {
        return !status.ok() && std::strcmp(status.code, "ERR_STATE") == 0;
      };
      if (!isRefused(context->waitFor(1)) || !isRefused(context->precede(1)))
        fail("was ordered against a stream that no capture takes");
      if (!isRefused(context->awaitable()) || !isRefused(context->notify(done, nullptr)))
        fail("would tell what a graph will do");
      if (!isRefused(context->upload(lent->data, lentAt, 1))) fail("takes the host's memory along");
      if (!context->isCaptured() || other->isCaptured()) fail("does not know what is captured");
      std::shared_ptr<uint32_t> words;
      check(context->words(16, words));
      const uint32_t* const wordsAt = words.get();
      words.reset();
      check(context->words(16, words));
      if (words.get() == wordsAt) fail("gave words to another that a graph may write");
      // Whose own stream is captured gives back, too: the other context is not to join the capture.
      check(other->reuseAfter(context->stream()));
      if (!takes(*other, 512)) fail("waits for a capture");
      if (takes(*other, 3 * kLarge)) return;
      // The captured stream's memory stays, so that there is no room for two such blocks.
      if (takes(*other, 2 * kLarge - (size_t{1} << 18))) fail("took memory of a stream that is captured");
      if (other->usage().kept != 0) fail("kept its own");
      keep(*other);
      if (!takes(*context, kLarge / 2)) fail("did not take what the other kept");
      if (other->usage().kept != 0) fail("the other kept what was asked for");
    });
    unsetenv("EMULATED_MEMORY");
    check(cpu::backend().step(paramsOf(c, rows, {}, o, Place::Host), nullptr));
    graph.launch();
    compareAll(o);
  }
}

inline void graphs() {
  constexpr Dtype kFloat32 = Dtype::Float32;
  for (const Source source : {Source::Given, Source::Stream, Source::Streams, Source::Mixed})
    for (const Shape shape : {Shape{3, 5000}, Shape{2, 40000}, Shape{70, 9}}) {
      const Case c{shape, kFloat32, kFloat32, kFloat32, 0, source};
      for (int kind = 0; kind < 3; ++kind)
        replayed("kind " + std::to_string(kind), c, [&] { return std::vector{anyRow(c, kind)}; });
      replayed("any", c, [&] { return rowsOf(c, [&] { return anyRow(c); }); });
      if (shape.rows > 60) continue;  // which a capture takes from device memory alone
      for (const auto mode : {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal})
        capturedFirst(mode, c, rowsOf(c, [&] { return anyRow(c, mode == cudaStreamCaptureModeGlobal ? 1 : -1); }));
    }
  label = "many rows in a graph";
  const Case many{{200, 5}, kFloat32, kFloat32, kFloat32};
  Operands o(many, kTerms);
  const Graph graph(cudaStreamCaptureModeThreadLocal, [&] {
    const Status status = context->backend().step(
        paramsOf(many, rowsOf(many, [&] { return anyRow(many); }), {}, o, Place::Device), nullptr);
    if (status.ok()) fail("was taken from host memory");
  });
}

}  // namespace score_sde::parity
