#include <napi.h>

#include "binding/async_call.hpp"
#include "binding/exports.hpp"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  score_sde::binding::initAsyncCalls(env);
  score_sde::binding::exportMemory(env, exports);
  score_sde::binding::exportOperations(env, exports);
  score_sde::binding::exportHost(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(score_sde, init)
