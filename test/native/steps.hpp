// Updates in both places: rows of any kind, alone and mixed, in operands of any type and place.
#pragma once

#include <algorithm>
#include <functional>

#include "core/params.hpp"
#include "parity.hpp"

namespace score_sde::parity {

enum class Source { Given, Stream, Streams, Mixed };  // Mixed: streams, and given rows beside them
inline const char* const kSources[] = {"given", "one stream", "a stream a row", "given and a stream a row"};

/// Of the updates of each case, one in so many is made.
inline uint32_t stride = 1;

/// What both backends are given; only the memory differs.
struct Case {
  Shape shape;
  Dtype sample, output, out;
  size_t shift = 0;  // elements by which memory is off
  Source source = Source::Given;
  bool wild = false;  // operands of any bits
};

inline std::string show(const Case& c) {
  return std::to_string(c.shape.rows) + "x" + std::to_string(c.shape.cols) + " " + kNames[int(c.sample)] + " " +
         kNames[int(c.output)] + " -> " + kNames[int(c.out)] + ", shift " + std::to_string(c.shift) + ", " +
         kSources[int(c.source)] + (c.wild ? ", wild" : "");
}

inline std::vector<PhiloxStream> streamsOf(const Case& c) {
  std::vector<PhiloxStream> streams;
  for (size_t s = 0; s < (c.source == Source::Stream ? 1 : c.shape.rows); ++s)
    streams.push_back({0x0123456789abcdefu + s, 0xfffffff0u + s});
  return streams;
}

inline Noise noiseOf(const Case& c, View given, Dtype drawn) {
  Noise noise;
  noise.type = drawn;
  if (c.source == Source::Given || c.source == Source::Mixed) noise.given = given;
  if (c.source == Source::Given) return noise;
  noise.kind = Noise::Kind::Philox;
  noise.philox = streamsOf(c);
  return noise;
}

/// Which outputs are wanted, and where they lie.
struct Wanted {
  bool mean = false, pushed = false;
  int overHistory = -1;  // `pushed` is the memory of that one of the history
  enum { Apart, OverSample, OverOutput, OverBase } out = Apart;
};

struct Operands {
  /// With as many values pushed before as `terms` reads beside P, or as an output takes the place of.
  explicit Operands(const Case& c, size_t terms = 0)
      : sample(c.sample, c.shape.size(), c.shift, c.wild),
        output(c.output, c.shape.size(), c.shift, c.wild),
        noise(c.sample, c.shape.size(), c.shift),
        base(c.out, c.shape.size(), c.shift, c.wild),
        out(c.out, c.shape.size(), c.shift / 2),
        mean(c.out, c.shape.size(), c.shift),
        pushed(c.out, c.shape.size(), c.shift) {
    for (size_t k = 0; k + 1 < terms; ++k)
      history.push_back(std::make_unique<Memory>(c.out, c.shape.size(), k % 2 == 0 ? c.shift : 0, c.wild));
  }
  Memory sample, output, noise, base, out, mean, pushed;
  std::vector<std::unique_ptr<Memory>> history;
};

/// The most values that the rows name: P, H1, ...
inline size_t termsOf(const std::vector<RowStep>& rows, const Wanted& wanted) {
  size_t terms = size_t(wanted.overHistory + 2);
  for (const RowStep& row : rows) terms = std::max<size_t>(terms, row.terms);
  return terms;
}

/// With null for each operand that no row reads.
inline StepParams paramsOf(const Case& c, const std::vector<RowStep>& rows, const Wanted& wanted, Operands& o,
                           Place place) {
  StepParams p;
  p.shape = c.shape;
  p.rows = rows;
  p.sample = in(o.sample, place);
  Dtype drawn = c.sample;
  for (const RowStep& row : rows) {
    const bool linear = row.kind == RowStep::Kind::Linear;
    if (row.kind == RowStep::Kind::Correct) drawn = Dtype::Float32;
    if (!linear || (row.terms > 0 && (wanted.pushed || row.b[0] != 0.0f))) p.output = in(o.output, place);
    if (!linear) continue;
    if (row.base != 0.0f) p.base = in(o.base, place);
    for (size_t k = 1; k < row.terms; ++k)
      if (row.b[k] != 0.0f) p.history[k - 1] = in(*o.history[k - 1], place);
  }
  p.noise = noiseOf(c, in(o.noise, place), drawn);
  p.out = in(wanted.out == Wanted::OverSample   ? o.sample
             : wanted.out == Wanted::OverOutput ? o.output
             : wanted.out == Wanted::OverBase   ? o.base
                                                : o.out,
             place);
  if (wanted.mean) p.mean = in(o.mean, place);
  if (wanted.pushed) p.pushed = in(wanted.overHistory < 0 ? o.pushed : *o.history[size_t(wanted.overHistory)], place);
  return p;
}

inline void compareAll(Operands& o) {
  for (Memory* memory : {&o.sample, &o.output, &o.base, &o.out, &o.mean, &o.pushed}) memory->compare();
  for (const auto& memory : o.history) memory->compare();
}

/// A step in both places: its results, all that it should leave alone, and the rows that are not finite.
inline void step(const std::string& name, const Case& c, const std::vector<RowStep>& rows, const Wanted& wanted = {}) {
  static uint32_t turn = 0;
  if (turn++ % stride != 0) return;
  label = name + " " + show(c) + (wanted.mean ? ", mean" : "") + (wanted.pushed ? ", pushed" : "");
  Operands o(c, termsOf(rows, wanted));
  Marked marked(c.shape.rows);
  std::vector<uint32_t> bad;
  for (const Place place : {Place::Host, Place::Device}) {
    StepParams p = paramsOf(c, rows, wanted, o, place);
    p.mark = marked.mark();
    check(on(place).step(p, place == Place::Host ? &bad : nullptr));
  }
  compareAll(o);
  // What is pushed as the network gave it keeps its NaN, too.
  const auto kept = [](const RowStep& row) { return row.kind == RowStep::Kind::Linear && !row.converts; };
  if (wanted.pushed && wanted.overHistory < 0 && std::all_of(rows.begin(), rows.end(), kept)) o.pushed.compare(true);
  marked.compare(bad);
}

inline float between(float low, float high) {
  return low + (high - low) * static_cast<float>(nextWord() % 10000) * 1e-4f;
}

/// A row that may be anything; of a kind where that is given.
inline RowStep anyRow(const Case& c, int kind = -1, int maxTerms = int(kTerms)) {
  using Normals = RowStep::Normals;
  RowStep row;
  row.kind = static_cast<RowStep::Kind>(kind < 0 ? int(nextWord() % 3) : kind);
  const bool noisy = nextWord() % 5 != 0,
             given = c.source == Source::Given || (c.source == Source::Mixed && nextWord() % 2);
  row.normals = !noisy ? Normals::None : given ? Normals::Given : Normals::Drawn;
  row.stepSize = static_cast<StepSize>(nextWord() % 4);
  row.converts = nextWord() % 3 == 0;
  row.px = between(-1.0f, 1.0f);
  row.pm = between(-1.0f, 1.0f);
  row.terms = static_cast<uint8_t>(nextWord() % uint32_t(maxTerms + 1));
  row.a = between(0.5f, 1.5f);
  for (float& b : row.b) b = nextWord() % 4 == 0 ? 0.0f : between(-1.0f, 1.0f);
  row.base = maxTerms < int(kTerms) || nextWord() % 2 ? 0.0f : between(-1.0f, 1.0f);
  row.e = between(0.0f, 2.0f);
  row.next = between(0.5f, 1.5f);
  row.sigma = row.next + between(0.1f, 1.0f);
  row.snr = between(0.1f, 0.3f);
  // Where a stream serves the row alone, the row may begin within a counter.
  const bool alone = c.source == Source::Streams || c.source == Source::Mixed || c.shape.rows == 1;
  if (alone) row.phase = static_cast<uint8_t>(nextWord() % 4);
  return row;
}

/// Rows whose adjacent ones are of one group now and then.
inline std::vector<RowStep> rowsOf(const Case& c, const std::function<RowStep()>& next) {
  std::vector<RowStep> rows;
  for (size_t r = 0; r < c.shape.rows; ++r) {
    rows.push_back(next());
    rows.back().group = r > 0 ? rows[r - 1].group + (nextWord() % 3 == 0) : 0;
  }
  return rows;
}

/// One record for all rows, and one each, of every kind; then rows of any kind.
inline void steps(const Case& c) {
  const auto with = [](auto change) {
    return [change](RowStep row) {
      change(row);
      return row;
    };
  };
  const auto both = [&](const std::string& name, const std::function<RowStep()>& next, Wanted wanted = {}) {
    step(name, c, {next()}, wanted);
    step(name + ", each", c, rowsOf(c, next), wanted);
  };
  for (const bool mean : {false, true}) {
    both("predict", [&] { return anyRow(c, 0); }, {.mean = mean});
    for (int size = 0; size < 4; ++size) {
      const auto sized = with([&](RowStep& row) { row.stepSize = static_cast<StepSize>(size); });
      both("correct " + std::to_string(size), [&] { return sized(anyRow(c, 1)); }, {.mean = mean});
    }
    const auto one = with([](RowStep& row) { row.stepSize = StepSize::Batch; });
    std::vector<RowStep> rows = rowsOf(c, [&] { return one(anyRow(c, 1)); });
    for (RowStep& row : rows) row.group = 3;
    step("correct, one group", c, rows, {.mean = mean});
    both("correct, any", [&] { return anyRow(c, 1); }, {.mean = mean});
  }
  for (int terms = 0; terms <= int(kTerms); ++terms) {
    const auto exact = with([&](RowStep& row) { row.terms = static_cast<uint8_t>(terms); });
    const std::string name = "linear " + std::to_string(terms);
    both(name, [&] { return exact(anyRow(c, 2, 3)); });
    both(name, [&] { return exact(anyRow(c, 2, 3)); }, {.mean = true, .pushed = true});
    both(name + ", base", [&] { return exact(anyRow(c, 2)); }, {.pushed = true, .overHistory = terms % 6});
  }
  both("linear, any", [&] { return anyRow(c, 2, 3); }, {.pushed = true, .overHistory = 1});
  for (int turn = 0; turn < 3; ++turn) {
    const auto any = [&] { return anyRow(c); };
    step("any", c, rowsOf(c, any), {.mean = turn > 0, .pushed = turn > 1, .overHistory = 5});
    if (c.sample == c.out) step("any, over x", c, rowsOf(c, any), {.pushed = true, .out = Wanted::OverSample});
    if (c.output == c.out) step("any, over m", c, rowsOf(c, any), {.pushed = true, .out = Wanted::OverOutput});
    step("any, over the base", c, rowsOf(c, any), {.pushed = true, .overHistory = 0, .out = Wanted::OverBase});
  }
}

}  // namespace score_sde::parity
