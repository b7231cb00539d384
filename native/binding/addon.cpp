#include <napi.h>

#include "binding/async_call.hpp"
#include "binding/exports.hpp"
#include "cpu/multiversion.hpp"
#include "threads/stay_loaded.hpp"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  if (!score_sde::cpu::processorFits()) throw Napi::Error::New(env, "this build needs a processor with AVX2 and FMA");
  score_sde::stayLoaded();
  score_sde::binding::initAsyncCalls(env);
  score_sde::binding::Exports all(env, exports);
  score_sde::binding::exportMemory(all);
  score_sde::binding::exportOperations(all);
  score_sde::binding::exportHost(all);
  score_sde::binding::exportDevices(all);
  score_sde::binding::exportSharing(all);
  score_sde::binding::exportNetworks(all);
  return exports;
}

}  // namespace

NODE_API_MODULE(score_sde, init)
