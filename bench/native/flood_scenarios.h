// Machines and what they are asked, for flood_bench.cc and test/native/engine/flood_test.cc. All
// with the engine's own options, but for the one that is named after its.
#pragma once

#include "flood.h"

namespace lorax::flood {

// As measured on an H200 with Llama 3.1 8B: a step's fixed part is as long as 200 rows. Prompts and
// answers as in a chat; as in S-LoRA's trace; short; long; and as in a chat, where rows are
// computed in tiles of 256.
inline const Scenario kGpuChat{"gpu-chat", 5, 0.025, 1, 2048, 256, 768, 64, 192};
inline const Scenario kGpuTrace{"gpu-trace", 5, 0.025, 1, 2048, 8, 512, 8, 512};
inline const Scenario kGpuShort{"gpu-short", 5, 0.025, 1, 2048, 32, 96, 16, 48};
inline const Scenario kGpuLong{"gpu-long", 5, 0.025, 1, 2048, 512, 3072, 64, 192};
inline const Scenario kGpuTiles{"gpu-tiles", 4.5, 0.0246, 1, 2048, 256, 768, 64, 192, 4, 50, 256};
// A small model on two cores, where a step's fixed part is as long as ten rows: as in a chat,
// short, both also where steps can be set aside, and with steps of 32 rows; and a machine that has
// no fixed part.
inline const Scenario kCpuChat{"cpu-chat", 12, 1.2, 0, 512, 128, 384, 32, 96};
inline const Scenario kCpuShort{"cpu-short", 12, 1.2, 0, 512, 32, 96, 16, 48};
inline const Scenario kCpuLayers{"cpu-layers", 12, 1.2, 0, 512, 128, 384, 32, 96, 4, 50, 1, 24};
inline const Scenario kCpuShortLayers{
    "cpu-short-layers", 12, 1.2, 0, 512, 32, 96, 16, 48, 4, 50, 1, 24};
inline const Scenario kCpuShortSteps{"cpu-32-rows", 12, 1.2, 0, 32, 32, 96, 16, 48};
inline const Scenario kProportional{"proportional", 0.01, 1, 0, 512, 32, 96, 16, 48};

inline const Scenario kScenarios[] = {kGpuChat,      kGpuTiles,  kGpuTrace,      kGpuShort,
                                      kGpuLong,      kCpuChat,   kCpuShort,      kCpuShortSteps,
                                      kProportional, kCpuLayers, kCpuShortLayers};

}  // namespace lorax::flood
