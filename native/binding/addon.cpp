#include <napi.h>

#include "binding/exports.hpp"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  score_sde::binding::exportMemory(env, exports);
  score_sde::binding::exportOperations(env, exports);
  score_sde::binding::exportHost(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(score_sde, init)
