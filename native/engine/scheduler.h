// Which sequences run in a step and how many tokens of each: a pure function of integers.
//
// Decodes come first, so nobody's long prompt stalls another's stream: one token each, or several
// where a grammar has said what comes next. Prefill chunks get the rest of the token budget, oldest
// first; then requests are admitted, in the order that fair_queue.h finds. But what a tenant runs
// beyond its share gives its rows to the prompts of tenants that are within theirs, decodes too: so
// a tenant that keeps all places busy does not make the first tokens of others late; and while one
// floods the engine, steps are shorter (step_length.h), but for those prompts; or, where a step can
// be set aside for another one between two of its layers, those prompts are in such steps alone.
// Always holds: every running sequence had its turn before every waiting one, so the oldest is
// never preempted and finishes, whatever the others do: no deadlock, no livelock, no starvation.
// While a step is in flight, pages that a sequence gives up are nobody's until it is over: who
// needs one of them waits for the schedule after this one. What nobody uses counts as free:
// adapters and prefixes stay in pages until somebody takes those; which ones go, the eviction queue
// says. Who runs but whose adapter has not arrived sits out, so that its copy holds nobody up; one
// goes on in a step of its own, when nobody else has anything to compute.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lorax {

struct SchedulerLimits {
  int32_t max_batch_tokens = 0;  // rows of one step
  int32_t max_running = 0;       // at most max_running_sequences() of the budget
  int32_t block_tokens = 0;
  bool copies_beside_steps = false;  // an adapter that is placed arrives while others go on
};

// Decodes take at most half of a step, so a prefill always has the other half.
int32_t max_running_sequences(int32_t max_sequences, int32_t max_batch_tokens);

struct ScheduledSequence {
  int32_t num_tokens = 0;              // prompt and generated, those in flight too
  int32_t num_computed = 0;            // positions whose KV is in pages; < num_tokens
  int32_t num_blocks = 0;              // held or, where it waits, found in the prefix cache
  int32_t num_first_blocks = 0;        // of those, the ones that no sequence before it has
  std::vector<int32_t> adapters = {};  // indices into SchedulerState::adapters; empty = base
  bool generates = false;              // what is not computed was generated since it was admitted
  bool is_light = false;               // within its tenant's share
  bool keeps = false;                  // its rows: it is of its tenant's part of what runs
  bool is_set_aside = false;           // with the step that has rows of it
};

struct ScheduledAdapter {
  int32_t num_pages = 0;
  bool resident = false;
  int32_t num_running = 0;   // running sequences that use it
  bool has_arrived = false;  // else it is on its way into its pages
};

// Whose prompts a step computes, and whether it computes anything else.
enum class StepKind : uint8_t {
  kAll,
  kWithoutLight,  // admits them, for others to compute
  kLight,         // their prompts alone, while another step is set aside
};

struct SchedulerState {
  SchedulerLimits limits;
  int32_t available_pages = 0;                 // free, or what lies in them is given up at once
  std::span<const ScheduledSequence> running;  // in the order of their turns
  std::span<const ScheduledSequence>
      waiting;  // likewise, those preempted first; enough of the front
  std::span<const ScheduledAdapter> adapters;
  bool in_flight = false;      // a step was submitted and is not over
  int32_t coming_pages = 0;    // available once it is
  int32_t light_places = 0;    // of max_running, those for the light alone
  int32_t flood_rows = 0;      // rows of a step, prompts of the light aside; 0: of all
  bool others_waited = false;  // Schedule::others_wait of the step before
  StepKind kind = StepKind::kAll;
};

// `sequence` counts the running ones first, then the waiting ones.
struct Chunk {
  int32_t sequence = 0;
  int32_t num_tokens = 0;
};

// To be applied in this order.
struct Schedule {
  int32_t pool_full = -1;          // running sequence that is alone and finds no page: it ends;
                                   // never with a step in flight, which may end it with a token
  std::vector<int32_t> preempted;  // running sequences that go back to wait, newest first
  int32_t num_admitted = 0;  // from the front of waiting, where nobody leaves; each holds what was
                             // found of it, gets pages for the rest of its known tokens and those
                             // of its adapters that are not resident
  int32_t num_taken_pages = 0;  // by them and by decodes: so many have to be free
  std::vector<Chunk> chunks;    // in the order of turns
  bool others_wait = false;     // what is others' whatever comes has no rows in it
};

Schedule make_schedule(const SchedulerState& state);

}  // namespace lorax
