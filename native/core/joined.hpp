#pragma once

#include <algorithm>

#include "core/params.hpp"

namespace score_sde {

/// Whether two rows do the same to each element, given the same normals; a corrector's step aside, which depends on its
/// group.
inline bool sameUpdate(const RowStep& r, const RowStep& s) {
  return r.kind == s.kind && r.normals == s.normals && r.stepSize == s.stepSize && r.converts == s.converts &&
         r.terms == s.terms && r.px == s.px && r.pm == s.pm && r.a == s.a && std::equal(r.b, r.b + kTerms, s.b) &&
         r.base == s.base && r.e == s.e && r.sigma == s.sigma && r.next == s.next && r.snr == s.snr;
}

inline bool sameUpdates(const std::vector<RowStep>& rows) {
  return rows.size() < 2 ||
         std::all_of(rows.begin() + 1, rows.end(), [&](const RowStep& row) { return sameUpdate(row, rows[0]); });
}

/// Rows that draw from one stream and of which each element is treated the same are one long row, however short each
/// is.
inline Shape joined(Shape shape, const Noise& noise, bool same = true) {
  const bool perRow = noise.kind != Noise::Kind::Given && noise.streams() > 1;
  return perRow || !same ? shape : Shape{shape.size() > 0 ? size_t{1} : size_t{0}, shape.size()};
}

}  // namespace score_sde
