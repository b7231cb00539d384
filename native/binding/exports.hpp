#pragma once

#include <napi.h>

#include <string>

namespace score_sde::binding {

/// The functions that the addon exports to JS, by name.
class Exports {
 public:
  Exports(Napi::Env env, Napi::Object object) : env_(env), object_(object) {}
  void add(const std::string& name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    object_.Set(name, Napi::Function::New(env_, function, name));
  }

 private:
  const Napi::Env env_;
  Napi::Object object_;
};

void exportMemory(Exports& exports);
void exportOperations(Exports& exports);
void exportHost(Exports& exports);
void exportDevices(Exports& exports);
void exportSharing(Exports& exports);
void exportNetworks(Exports& exports);

}  // namespace score_sde::binding
