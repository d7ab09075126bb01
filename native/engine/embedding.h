// What an embedding is made of: the final hidden states of a prompt, pooled to one vector.
//
// Backends add the states up (StepPlan::pooled); the rest is here, the same on every device. Pure
// functions; called by the step loop.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lorax {

// Which tokens' states: the mean of all, the last one's, the first one's.
enum class Pooling : int32_t { kMean, kLast, kCls };

struct EmbeddingParams {
  Pooling pooling = Pooling::kMean;
  bool normalize = false;  // to length 1 (L2); the vector 0 stays
};

// The prompt's position from which on states are pooled, to its end. A decoder's first token sees
// nothing behind it, so for kCls a prompt is cut to it.
int32_t first_pooled(Pooling pooling, int32_t num_prompt);

// The embedding whose `count` states sum up to `sum`. False when it is not finite.
bool make_embedding(std::span<const float> sum, int32_t count, bool normalize,
                    std::vector<float>* embedding);

}  // namespace lorax
