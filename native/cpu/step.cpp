// One update of every row: a pass that measures norms, where rows need them, and a pass that updates. Rows whose norms
// are their own go through both one by one.
#include "cpu/step.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>

#include "core/joined.hpp"
#include "cpu/blocks.hpp"
#include "math/step_rule.hpp"

namespace score_sde::cpu {
namespace {

/// The element of a list that has one for all rows, or one each.
template <class Value>
const Value& ofRow(const std::vector<Value>& values, size_t row) {
  return values[values.size() == 1 ? 0 : row];
}

template <class Predicate>
bool any(const std::vector<RowStep>& rows, const Predicate& predicate) {
  return std::any_of(rows.begin(), rows.end(), predicate);
}

// Normals that are kept in memory of their own rather than drawn again. The allocator keeps a freed block of 8 MiB for
// the next call. A block above its mmap threshold, which glibc raises up to 32 MiB, goes back to the system and is
// mapped and faulted in anew by each call, which takes longer than to draw.
constexpr size_t kKept = size_t{1} << 21;

/// Threads that work at rows side by side.
size_t rowThreads(Shape shape) {
  return blocksOf(shape) <= kAlone ? 1 : static_cast<size_t>(ThreadPool::instance().threads());
}

bool drawsWhatItMeasures(const RowStep& row) { return measuresNoise(row) && row.normals == RowStep::Normals::Drawn; }

/// P of a block, computed from x where the row converts; with `apart` never where an operand lies.
const float* valueOf(const StepParams& p, const RowStep& row, const float* x, size_t at, size_t n, Scratch& scratch,
                     bool apart = false) {
  const float* const m = readBlock(p.output, at, n, scratch.score);
  if (row.converts) {
    convertOutput(scratch.score, x, m, n, row.px, row.pm);
    return scratch.score;
  }
  if (!apart || m == scratch.score) return m;
  std::memcpy(scratch.score, m, n * sizeof(float));
  return scratch.score;
}

/// What is computed already, to its place.
void copyBlock(View view, size_t at, size_t n, const float* block) {
  if (view.type == Dtype::Float32) {
    std::memcpy(static_cast<float*>(view.data) + at, block, n * sizeof(float));
  } else {
    writeBlock(view, at, n, block);
  }
}

/// A linear update of a block. Its sum lies in scratch, and nothing is written before all operands are read, since an
/// output may be the memory of any of them.
bool linear(const StepParams& p, const RowStep& row, const float* x, size_t at, size_t n, const Normals& z, float* out,
            Scratch& scratch) {
  const bool pushes = p.pushed.data != nullptr && row.terms > 0;
  const bool starts = row.terms > 0 && row.b[0] != 0.0f;
  const float* value = nullptr;
  const float* sum = scratch.sum;
  size_t k = 1;  // the next of H1, H2, ... to be added
  if (starts) {
    while (k < 3 && k < row.terms && row.b[k] != 0.0f) ++k;
    const float* const m = readBlock(p.output, at, n, scratch.score);
    const float* const first = k > 1 ? readBlock(p.history[0], at, n, scratch.term) : nullptr;
    const float* const second = k > 2 ? readBlock(p.history[1], at, n, scratch.mean) : nullptr;
    const Terms terms{k, x, m, first, second, row.converts, row.px, row.pm, row.a, row.b[0], row.b[1], row.b[2]};
    linearSum(scratch.sum, scratch.score, terms, n);
    value = scratch.score;
  } else {
    if (pushes) value = valueOf(p, row, x, at, n, scratch, true);
    if (row.a == 1.0f && row.terms == 0 && row.base == 0.0f && p.mean.data == nullptr) {
      sum = x;
    } else {
      linearStart(scratch.sum, x, n, row.a);
    }
  }
  for (; k < row.terms; ++k)
    if (row.b[k] != 0.0f) linearTerm(scratch.sum, readBlock(p.history[k - 1], at, n, scratch.term), n, row.b[k]);
  if (row.base != 0.0f) linearTerm(scratch.sum, readBlock(p.base, at, n, scratch.term), n, row.base);
  const bool finite = addNormals(out, sum, z, n, row.e);
  if (p.mean.data != nullptr) copyBlock(p.mean, at, n, sum);
  if (pushes) copyBlock(p.pushed, at, n, value);
  return finite;
}

/// The update of a block, whose corrector's step is known. Returns whether its `out` is finite.
bool update(const StepParams& p, const RowStep& row, float step, size_t at, size_t n, const Normals& z,
            Scratch& scratch) {
  const float* const x = readBlock(p.sample, at, n, scratch.sample);
  float* const out = blockTarget(p.out, at, scratch.out);
  bool finite = true;
  if (row.kind == RowStep::Kind::Linear) {
    finite = linear(p, row, x, at, n, z, out, scratch);
  } else {
    const float* const score = valueOf(p, row, x, at, n, scratch);
    float* const mean = p.mean.data == nullptr ? nullptr : blockTarget(p.mean, at, scratch.mean);
    finite = row.kind == RowStep::Kind::Predict ? predict(out, mean, x, score, z, n, diffusion(row.sigma, row.next))
                                                : correct(out, mean, x, score, z, n, step);
    if (mean != nullptr) writeBlock(p.mean, at, n, mean);
  }
  return p.out.type == Dtype::Float32 ? finite : writeBlock(p.out, at, n, out);
}

/// The upper levels of the sum tree, in place over a row's block sums.
double foldLevels(double* sums, size_t count) {
  while (count > 1) {
    const size_t groups = sumGroups(count);
    for (size_t g = 0; g < groups; ++g)
      sums[g] = sumGroup(sums + g * kSumGroup, std::min(kSumGroup, count - g * kSumGroup));
    count = groups;
  }
  return count == 0 ? 0.0 : sums[0];
}

struct Norms {
  float score = 0.0f, noise = 0.0f;
};

/// A row's norms from its blocks' sums, which are used up. Sums that the row does not measure are not read.
Norms normsOf(const StepParams& p, const RowStep& row, double* scoreSums, double* noiseSums) {
  if (!measuresScore(row)) return {};
  const size_t perRow = sumGroups(p.shape.cols);
  const double drawn = measuresNoise(row) ? foldLevels(noiseSums, perRow) : 0.0;
  return {scoreNorm(row, foldLevels(scoreSums, perRow), p.output.type), noiseNorm(row, drawn, p.shape.cols)};
}

/// A block's sum of squares of the score.
double scoreSum(const StepParams& p, const RowStep& row, size_t at, size_t n, Scratch& scratch) {
  const float* const x = row.converts ? readBlock(p.sample, at, n, scratch.sample) : nullptr;
  return sumSquares(valueOf(p, row, x, at, n, scratch), n);
}

/// A block's sum of squares of the noise, which is kept where `kept` is not null.
double noiseSum(const NoiseSource& noise, size_t row, size_t col, size_t n, float* kept, Scratch& scratch) {
  float* const buffer = kept == nullptr ? scratch.noise : kept;
  const float* const z = noise.values(row, col, n, buffer, scratch);
  if (kept != nullptr && z != kept) std::memcpy(kept, z, n * sizeof(float));
  return sumSquares(z, n);
}

/// The corrector's step of each row, from the norms of its score and, where it is measured, of its noise: of the sums
/// of the noise's blocks, or of the noise itself where there are none. Noise that is drawn for it is kept where `kept`
/// is not null.
std::vector<float> measuredSteps(const StepParams& p, const NoiseSource& noise, float* kept,
                                 std::vector<double> noiseSums) {
  const size_t rows = p.shape.rows, cols = p.shape.cols, perRow = sumGroups(cols), blocks = rows * perRow;
  const bool sumsNoise = noiseSums.empty() && any(p.rows, measuresNoise);
  // Few allocations: a small step takes some microseconds. Of the scores' blocks, and of the noise's behind them.
  std::vector<double> sums(sumsNoise ? 2 * blocks : blocks);
  double* const scoreSums = sums.data();
  double* const drawnSums = sumsNoise ? scoreSums + blocks : noiseSums.empty() ? nullptr : noiseSums.data();
  forBlocks(p.shape, [&](size_t r, size_t col, size_t n, Scratch& scratch) {
    const RowStep& row = ofRow(p.rows, r);
    if (!measuresScore(row)) return;
    const size_t at = r * cols + col, group = r * perRow + col / kBlock;
    scoreSums[group] = scoreSum(p, row, at, n, scratch);
    if (!sumsNoise || !measuresNoise(row) || row.normals == RowStep::Normals::None) return;
    drawnSums[group] = noiseSum(noise, r, col, n, kept == nullptr ? nullptr : kept + at, scratch);
  });

  std::vector<float> norms(2 * rows), steps(rows);
  float* const scoreNorms = norms.data();
  float* const noiseNorms = scoreNorms + rows;
  for (size_t r = 0; r < rows; ++r) {
    const RowStep& row = ofRow(p.rows, r);
    double* const drawn = drawnSums == nullptr ? nullptr : drawnSums + r * perRow;
    const Norms own = normsOf(p, row, scoreSums + r * perRow, drawn);
    scoreNorms[r] = own.score;
    noiseNorms[r] = own.noise;
  }
  for (size_t r = 0, end = 0; r < rows; r = end) {
    const RowStep& first = ofRow(p.rows, r);
    float score = scoreNorms[r], drawn = noiseNorms[r];
    end = r + 1;
    if (sharesNorms(first)) {
      while (end < rows && sharesNorms(ofRow(p.rows, end)) && ofRow(p.rows, end).group == first.group) ++end;
      score = batchMean(scoreNorms + r, end - r);
      drawn = batchMean(noiseNorms + r, end - r);
    }
    for (size_t i = r; i < end; ++i) {
      const RowStep& row = ofRow(p.rows, i);
      if (row.kind == RowStep::Kind::Correct) steps[i] = correctorStep(row, score, drawn, p.output.type);
    }
  }
  return steps;
}

/// Whether noise can wait in `out`: it holds float32 values, and is no operand's memory.
bool isFree(const StepParams& p) {
  const void* const out = p.out.data;
  return p.out.type == Dtype::Float32 && out != p.sample.data && out != p.output.data && out != p.base.data &&
         std::none_of(p.history.begin(), p.history.end(), [&](const ConstView& h) { return h.data == out; });
}

/// What the second pass works with: the corrector's step of each row, and the noise and its records, which are the
/// parameters' own unless noise was kept.
struct Measured {
  std::vector<float> steps;
  bool keeps = false;
  Noise noise;
  std::vector<RowStep> rows;
  std::unique_ptr<float[]> own;  // the noise's memory, where it is not in `out`
};

/// Noise whose norm is measured is needed twice. It waits in `out` where that is free to hold it, in memory of its own
/// where it cannot be drawn again or is little, and is drawn again otherwise.
Status measure(const StepParams& p, Measured& done) {
  const NoiseSource drawn(p.noise, p.shape, &p.rows);
  const bool mixes = any(p.rows, [](const RowStep& row) { return row.normals == RowStep::Normals::Given; });
  if (mixes || !any(p.rows, drawsWhatItMeasures)) {
    done.steps = measuredSteps(p, drawn, nullptr, {});
    return {};
  }
  // One serial stream, and one stream over short rows, are best drawn in one go, ahead of the norms.
  const bool serial = p.noise.kind == Noise::Kind::Torch;
  const bool ahead = serial || (p.noise.streams() == 1 && p.shape.cols < kBlock && p.shape.rows > 1);
  float* kept = isFree(p) ? static_cast<float*>(p.out.data) : nullptr;
  if (kept == nullptr && (ahead || p.shape.size() <= kKept)) {
    done.own.reset(new (std::nothrow) float[p.shape.size()]);
    kept = done.own.get();
    if (kept == nullptr && ahead) return Status::error("ERR_MEMORY", "no memory for the noise");
  }
  if (kept == nullptr) {
    done.steps = measuredSteps(p, drawn, nullptr, {});
    return {};
  }
  done.keeps = true;
  done.rows = p.rows;
  for (RowStep& row : done.rows)
    if (ahead ? row.normals == RowStep::Normals::Drawn : drawsWhatItMeasures(row))
      row.normals = RowStep::Normals::Given;
  if (any(done.rows, [](const RowStep& row) { return row.normals == RowStep::Normals::Drawn; })) done.noise = p.noise;
  done.noise.given = {kept, Dtype::Float32};
  if (!ahead) {
    done.steps = measuredSteps(p, drawn, kept, {});
    return {};
  }
  const Shape shape = joined(p.shape, p.noise);
  // Blocks of the draw that are the rows' own are summed while they are in the cache.
  const bool whole = p.shape.cols % kBlock == 0;
  std::vector<double> noiseSums(whole ? blocksOf(p.shape) : 0);
  const auto keep = [&](size_t row, size_t col, size_t n, const Normals& z, Scratch&) {
    const size_t at = row * shape.cols + col;
    if (z.values != kept + at) store(kept + at, z, n);
    if (whole) noiseSums[at / kBlock] = sumSquares(kept + at, n);
  };
  forNoise(shape, p.noise, nullptr, keep, kept);
  done.steps = measuredSteps(p, NoiseSource(done.noise, p.shape, &done.rows), nullptr, std::move(noiseSums));
  return {};
}

/// Whether rows can be measured and updated one by one: no norm is shared, each is worth a thread and can keep its
/// normals, and the threads end together.
bool goesByRows(const StepParams& p) {
  const size_t rows = p.shape.rows, cols = p.shape.cols, threads = rowThreads(p.shape);
  const size_t turns = (rows + threads - 1) / threads;
  return p.noise.kind != Noise::Kind::Torch && cols >= kBlock && cols <= kKept && 8 * turns * threads <= 9 * rows &&
         !any(p.rows, sharesNorms);
}

/// Measures and updates a row while it is in the cache. Noise that is drawn for its norm is kept where `kept` is not
/// null. Returns whether its `out` is finite.
bool stepRow(const StepParams& p, const NoiseSource& noise, size_t r, float* kept, Scratch& scratch) {
  const size_t cols = p.shape.cols;
  const RowStep& row = ofRow(p.rows, r);
  const auto forRow = [&](const auto& visit) {
    for (size_t col = 0; col < cols; col += kBlock) visit(col, std::min(kBlock, cols - col));
  };
  if (!drawsWhatItMeasures(row)) kept = nullptr;
  double scoreSums[kKept / kBlock], noiseSums[kKept / kBlock];
  std::fill_n(noiseSums, sumGroups(cols), 0.0);  // of a row without noise
  const bool sumsNoise = measuresNoise(row) && row.normals != RowStep::Normals::None;
  if (measuresScore(row)) {
    forRow([&](size_t col, size_t n) {
      scoreSums[col / kBlock] = scoreSum(p, row, r * cols + col, n, scratch);
      if (sumsNoise)
        noiseSums[col / kBlock] = noiseSum(noise, r, col, n, kept == nullptr ? nullptr : kept + col, scratch);
    });
  }
  const Norms norms = normsOf(p, row, scoreSums, noiseSums);
  const float step =
      row.kind == RowStep::Kind::Correct ? correctorStep(row, norms.score, norms.noise, p.output.type) : 0.0f;
  bool finite = true;
  forRow([&](size_t col, size_t n) {
    const Normals z = kept == nullptr ? noise.normals(r, col, n, scratch) : Normals{.values = kept + col};
    finite &= update(p, row, step, r * cols + col, n, z, scratch);
  });
  return finite;
}

/// Every row in turn. Returns whether all of `out` is finite.
bool stepByRows(const StepParams& p) {
  const size_t rows = p.shape.rows, cols = p.shape.cols;
  const NoiseSource noise(p.noise, p.shape, &p.rows);
  float* const free = isFree(p) ? static_cast<float*>(p.out.data) : nullptr;
  std::atomic<bool> finite{true};
  ThreadPool::instance().forRange(rows, rowThreads(p.shape) == 1 ? rows : 1, [&](size_t begin, size_t end) {
    Scratch scratch;
    // Without memory for them normals are drawn again.
    std::unique_ptr<float[]> own;
    if (free == nullptr && any(p.rows, drawsWhatItMeasures)) own.reset(new (std::nothrow) float[cols]);
    for (size_t r = begin; r < end; ++r)
      if (!stepRow(p, noise, r, free == nullptr ? own.get() : free + r * cols, scratch))
        finite.store(false, std::memory_order_relaxed);
  });
  return finite;
}

/// The rows whose `out` is not finite.
std::vector<uint32_t> badRows(const StepParams& p) {
  const auto seen = std::make_unique<std::atomic<bool>[]>(p.shape.rows);
  forBlocks(p.shape, [&](size_t row, size_t col, size_t n, Scratch& scratch) {
    if (!isFinite(readBlock(p.out, row * p.shape.cols + col, n, scratch.out), n)) seen[row] = true;
  });
  std::vector<uint32_t> bad;
  for (size_t row = 0; row < p.shape.rows; ++row)
    if (seen[row]) bad.push_back(static_cast<uint32_t>(row));
  return bad;
}

}  // namespace

Status step(const StepParams& p, std::vector<uint32_t>* bad) {
  if (any(p.rows, measuresScore) && goesByRows(p)) {
    if (!stepByRows(p) && bad != nullptr) *bad = badRows(p);
    return {};
  }
  Measured measured;
  if (any(p.rows, measuresScore)) {
    TRY_STATUS(measure(p, measured));
  } else if (any(p.rows, [](const RowStep& row) { return row.kind == RowStep::Kind::Correct; })) {
    for (const RowStep& row : p.rows) measured.steps.push_back(annealedStep(row.snr, row.sigma));
  }
  static const std::vector<float> unused(1);
  const Noise& noise = measured.keeps ? measured.noise : p.noise;
  const std::vector<RowStep>& rows = measured.keeps ? measured.rows : p.rows;
  const std::vector<float>& steps = measured.steps.empty() ? unused : measured.steps;
  const bool same =
      sameUpdates(rows) && std::all_of(steps.begin(), steps.end(), [&](float s) { return s == steps[0]; });
  const Shape shape = joined(p.shape, noise, same);
  std::atomic<bool> finite{true};
  forNoise(shape, noise, &rows, [&](size_t row, size_t col, size_t n, const Normals& z, Scratch& scratch) {
    if (!update(p, ofRow(rows, row), ofRow(steps, row), row * shape.cols + col, n, z, scratch))
      finite.store(false, std::memory_order_relaxed);
  });
  if (bad != nullptr && !finite) *bad = badRows(p);
  return {};
}

}  // namespace score_sde::cpu
