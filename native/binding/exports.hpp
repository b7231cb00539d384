#pragma once

#include <napi.h>

namespace score_sde::binding {

void exportMemory(Napi::Env env, Napi::Object exports);
void exportOperations(Napi::Env env, Napi::Object exports);
void exportHost(Napi::Env env, Napi::Object exports);

}  // namespace score_sde::binding
