#pragma once

namespace score_sde {

/// Keeps this library loaded until the process ends. Node.js unloads an addon with the last environment that has loaded
/// it, and the pools' threads run its code for longer.
void stayLoaded();

}  // namespace score_sde
