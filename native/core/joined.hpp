#pragma once

#include <algorithm>
#include <initializer_list>

#include "core/params.hpp"

namespace score_sde {

/// Rows that draw from one stream and share their coefficients are one long row, however short each is.
inline Shape joined(Shape shape, const Noise& noise, std::initializer_list<const PerRow*> coefficients) {
  const bool perRow = noise.kind != Noise::Kind::Given && noise.streams() > 1;
  const bool same = std::all_of(coefficients.begin(), coefficients.end(), [](const PerRow* c) {
    if (c->device != nullptr) return !c->each;
    return std::all_of(c->values.begin(), c->values.end(), [&](float value) { return value == c->values[0]; });
  });
  return perRow || !same ? shape : Shape{shape.size() > 0 ? size_t{1} : size_t{0}, shape.size()};
}

}  // namespace score_sde
