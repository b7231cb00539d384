// The records of a step as JS writes them, and what they may ask of its operands.
#include "binding/records.hpp"

#include <array>
#include <cstdint>
#include <string>

#include "binding/args.hpp"

namespace score_sde::binding {
namespace {

/// Places in a record: Row in lib/native/abi.ts.
enum Place : size_t {
  kKind,
  kNormals,
  kStepSize,
  kConverts,
  kTermCount,
  kPhase,
  kGroup,
  kPx,
  kPm,
  kA,
  kB,
  kBase = kB + kTerms,
  kE,
  kSigma,
  kNext,
  kSnr,
  kRecord
};
static_assert(kRecord == kRecordFloats);

Status refused(const std::string& what) { return Status::error("ERR_NATIVE", what); }

/// A whole number of [0, most], which a float32 holds exactly; not for NaN.
bool isWhole(float value, float most) {
  return value >= 0.0f && value <= most && value == static_cast<float>(static_cast<int32_t>(value));
}

constexpr float kMaxGroup = 16777216.0f;  // 2^24: the whole numbers up to it are float32 values

}  // namespace

Status readRecord(const float* record, RowStep& row) {
  constexpr std::array<float, kPx> most = {2, 2, 3, 1, kTerms, 3, kMaxGroup};  // by place
  for (size_t place = 0; place < most.size(); ++place)
    if (!isWhole(record[place], most[place]))
      return refused("expected a whole number up to " + std::to_string(static_cast<int>(most[place])) + " at place " +
                     std::to_string(place) + " of a row's record");
  row.kind = static_cast<RowStep::Kind>(static_cast<int>(record[kKind]));
  row.normals = static_cast<RowStep::Normals>(static_cast<int>(record[kNormals]));
  row.stepSize = static_cast<StepSize>(static_cast<int>(record[kStepSize]));
  row.converts = record[kConverts] != 0.0f;
  row.terms = static_cast<uint8_t>(record[kTermCount]);
  row.phase = static_cast<uint8_t>(record[kPhase]);
  row.group = static_cast<uint32_t>(record[kGroup]);
  row.px = record[kPx];
  row.pm = record[kPm];
  row.a = record[kA];
  for (size_t k = 0; k < kTerms; ++k) row.b[k] = record[kB + k];
  row.base = record[kBase];
  row.e = record[kE];
  row.sigma = record[kSigma];
  row.next = record[kNext];
  row.snr = record[kSnr];
  return {};
}

Status checkRow(const StepParams& p, const RowStep& row) {
  const bool linear = row.kind == RowStep::Kind::Linear, corrects = row.kind == RowStep::Kind::Correct;
  if ((!linear || row.terms > 0) && p.output.data == nullptr)
    return refused("a row reads the output, and there is none");
  for (size_t k = 1; linear && k < row.terms; ++k)
    if (row.b[k] != 0.0f && p.history[k - 1].data == nullptr)
      return refused("a row reads H" + std::to_string(k) + ", and there is none");
  if (linear && row.base != 0.0f && p.base.data == nullptr) return refused("a row reads the base, and there is none");
  const bool draws = p.noise.kind != Noise::Kind::Given;
  if (row.normals == RowStep::Normals::Drawn && !draws) return refused("a row draws, and there is no stream");
  if (row.normals == RowStep::Normals::Given && p.noise.given.data == nullptr)
    return refused("a row reads the given noise, and there is none");
  if (p.noise.kind == Noise::Kind::Torch && row.normals != RowStep::Normals::Drawn)
    return refused("torch streams are drawn for all rows");
  if (corrects && row.normals == RowStep::Normals::None &&
      (row.stepSize == StepSize::Batch || row.stepSize == StepSize::Sample))
    return refused("a row measures its noise, and has none");
  if (row.phase != 0 && (p.noise.kind != Noise::Kind::Philox || p.noise.streams() != p.shape.rows))
    return refused("only a row with a philox stream of its own begins within a counter");
  return {};
}

}  // namespace score_sde::binding
