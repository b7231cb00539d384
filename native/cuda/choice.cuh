// Which kernel serves a step: one of its own for rows of one kind in operands of one type, else the general one.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "cuda/kernels/norms.cuh"
#include "cuda/kernels/update.cuh"

namespace score_sde::cuda {
inline namespace choice_parts {

using StepKernel = void (*)(StepArgs);

/// Shows see() each operand and result that is there.
template <class See>
void eachView(const StepArgs& p, See see) {
  const auto show = [&](ConstView view) {
    if (view.data != nullptr) see(view);
  };
  for (const ConstView view : {p.sample, p.output, p.base, p.given}) show(view);
  for (const ConstView view : {ConstView(p.out), ConstView(p.mean), ConstView(p.pushed)}) show(view);
  for (const ConstView view : p.history) show(view);
}

/// The type of all operands that are there, and of the normals that are drawn.
inline Types typesOf(const StepArgs& p, bool draws) {
  const Dtype type = p.out.type;
  bool same = !draws || p.drawn == type || (p.drawn == Dtype::Float32 && type != Dtype::Float32);
  eachView(p, [&](ConstView view) { same &= view.type == type; });
  return same ? static_cast<Types>(type) : Types::Mixed;
}

/// An update's kernel for operands of one type; the general one where the types differ.
template <class Op>
StepKernel updateOf(Types types) {
  switch (types) {
    case Types::Float32:
      return update<Op, Types::Float32>;
    case Types::Float16:
      return update<Op, Types::Float16>;
    case Types::Bfloat16:
      return update<Op, Types::Bfloat16>;
    default:
      return update<Any, Types::Mixed>;
  }
}

inline StepKernel storeOf(Types types) {
  return types == Types::Mixed ? update<Store, Types::Mixed> : updateOf<Store>(types);
}

/// Of operands of several types both sums are taken at once.
template <Sums kSums>
StepKernel normsOf(Types types) {
  switch (types) {
    case Types::Float32:
      return norms<Types::Float32, kSums>;
    case Types::Float16:
      return norms<Types::Float16, kSums>;
    case Types::Bfloat16:
      return norms<Types::Bfloat16, kSums>;
    default:
      return norms<Types::Mixed, Sums::Both>;
  }
}

/// The kernel for the rows of a step.
inline StepKernel updateFor(const std::vector<RowStep>& rows, Types types) {
  const RowStep::Kind kind = rows[0].kind;
  const auto all = [&](auto holds) { return std::all_of(rows.begin(), rows.end(), holds); };
  if (!all([&](const RowStep& row) { return row.kind == kind; })) return updateOf<Any>(types);
  if (kind == RowStep::Kind::Predict) return updateOf<Predict>(types);
  if (kind == RowStep::Kind::Correct) return updateOf<Correct>(types);
  if (!all([](const RowStep& row) { return row.terms <= 3 && row.base == 0.0f; })) return updateOf<Any>(types);
  uint8_t terms = 0;
  for (const RowStep& row : rows) terms = std::max(terms, row.terms);
  switch (terms) {
    case 0:
      return updateOf<Linear<0>>(types);
    case 1:
      return updateOf<Linear<1>>(types);
    case 2:
      return updateOf<Linear<2>>(types);
    default:
      return updateOf<Linear<3>>(types);
  }
}

/// All that the functions above choose from.
inline std::vector<StepKernel> stepKernels() {
  std::vector<StepKernel> all;
  for (const Types types : {Types::Float32, Types::Float16, Types::Bfloat16, Types::Mixed})
    for (const StepKernel kernel :
         {storeOf(types), normsOf<Sums::Both>(types), normsOf<Sums::Noise>(types), normsOf<Sums::Score>(types),
          updateOf<Any>(types), updateOf<Predict>(types), updateOf<Correct>(types), updateOf<Linear<0>>(types),
          updateOf<Linear<1>>(types), updateOf<Linear<2>>(types), updateOf<Linear<3>>(types)})
      all.push_back(kernel);
  return all;
}

}  // namespace choice_parts
}  // namespace score_sde::cuda
