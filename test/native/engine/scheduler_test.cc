// Tables for the scheduling policy: small states, and exactly what is to be done in each.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>

namespace lorax {
namespace {

struct Case {
  std::string name;
  int32_t budget;
  int32_t max_running;
  int32_t available_pages;
  std::vector<ScheduledSequence> running;
  std::vector<ScheduledSequence> waiting;
  std::vector<ScheduledAdapter> adapters;
  std::string expected;
  int32_t coming = -1;  // 0 or more: a step is in flight, and so many pages come with its end
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

std::string text(const Schedule& schedule) {
  std::string out;
  if (schedule.pool_full >= 0) out += "full " + std::to_string(schedule.pool_full) + "; ";
  for (const int32_t i : schedule.preempted) out += "preempt " + std::to_string(i) + "; ";
  if (schedule.num_admitted > 0) out += "admit " + std::to_string(schedule.num_admitted) + "; ";
  if (schedule.num_taken_pages > 0)
    out += "take " + std::to_string(schedule.num_taken_pages) + "; ";
  for (const Chunk& chunk : schedule.chunks) {
    out += std::to_string(chunk.sequence) + ":" + std::to_string(chunk.num_tokens) + " ";
  }
  return out;
}

// clang-format off: one case, two lines.
// Pages hold 4 tokens. A sequence: {tokens known, tokens computed, pages it has, those of them that
// none before it has, adapters, generates}. An adapter: {pages, resident, running}.
const Case kCases[] = {
    {"nothing", 16, 8, 10, {}, {}, {}, ""},
    {"a decode", 16, 8, 10, {{5, 4, 2, 2, {}}}, {}, {}, "0:1 "},
    {"a prefill in chunks", 16, 8, 10, {{40, 0, 10, 10, {}}}, {}, {}, "0:16 "},
    {"the rest of a prefill", 16, 8, 10, {{40, 32, 10, 10, {}}}, {}, {}, "0:8 "},
    {"decodes first, prefill gets the rest", 16, 8, 10,
     {{40, 0, 10, 10, {}}, {5, 4, 2, 2, {}}, {9, 8, 3, 3, {}}}, {}, {}, "0:14 1:1 2:1 "},
    {"prefills oldest first", 16, 8, 10, {{10, 0, 3, 3, {}}, {40, 0, 10, 10, {}}, {5, 4, 2, 2, {}}}, {}, {},
     "0:10 1:5 2:1 "},
    {"forced tokens are decoded together", 16, 8, 10, {{9, 5, 3, 3, {}, true}, {5, 4, 2, 2, {}, true}},
     {}, {}, "0:4 1:1 "},
    {"they take their pages", 16, 8, 2, {{12, 4, 1, 1, {}, true}}, {}, {}, "take 2; 0:8 "},
    {"at most half of a step, one row for each", 16, 8, 10,
     {{30, 5, 8, 8, {}, true}, {30, 5, 8, 8, {}, true}, {5, 4, 2, 2, {}, true}, {40, 0, 10, 10, {}}}, {}, {},
     "0:6 1:1 2:1 3:8 "},
    {"they do not wait for an older prompt", 16, 8, 10, {{40, 0, 10, 10, {}}, {9, 6, 3, 3, {}, true}}, {},
     {}, "0:13 1:3 "},
    {"for their pages the newest is preempted", 16, 8, 1,
     {{12, 4, 1, 1, {}, true}, {7, 6, 2, 2, {}, true}}, {}, {}, "preempt 1; take 2; 0:8 "},
    {"they give way themselves", 16, 8, 0, {{7, 6, 2, 2, {}, true}, {12, 4, 1, 1, {}, true}}, {}, {},
     "preempt 1; 0:1 "},
    {"after a preemption all of it is a prefill", 16, 8, 10,
     {{40, 0, 10, 10, {}}, {9, 6, 3, 3, {}, false}}, {}, {}, "0:16 "},
    {"admission with what is left of the budget", 16, 8, 10, {{5, 4, 2, 2, {}}}, {{30, 0, 0, 0, {}}}, {},
     "admit 1; take 8; 0:1 1:15 "},
    {"two admissions", 16, 8, 11, {}, {{6, 0, 0, 0, {}}, {30, 0, 0, 0, {}}}, {}, "admit 2; take 10; 0:6 1:10 "},
    {"no budget, no admission", 16, 8, 30, {{40, 0, 10, 10, {}}}, {{6, 0, 0, 0, {}}}, {}, "0:16 "},
    {"all slots taken", 16, 1, 10, {{5, 4, 2, 2, {}}}, {{6, 0, 0, 0, {}}}, {}, "0:1 "},
    {"alone it may take the last page", 16, 8, 2, {}, {{8, 0, 0, 0, {}}}, {}, "admit 1; take 2; 0:8 "},
    {"beside others a page each stays in reserve", 16, 8, 2, {{5, 4, 2, 2, {}}}, {{8, 0, 0, 0, {}}}, {},
     "0:1 "},
    {"with the reserve it comes", 16, 8, 3, {{5, 4, 2, 2, {}}}, {{8, 0, 0, 0, {}}}, {},
     "admit 1; take 2; 0:1 1:8 "},
    {"one that does not fit holds back the next", 16, 8, 3, {{5, 4, 2, 2, {}}},
     {{20, 0, 0, 0, {}}, {1, 0, 0, 0, {}}}, {}, "0:1 "},
    {"a decode takes the last page", 16, 8, 1, {{5, 4, 1, 1, {}}}, {}, {}, "take 1; 0:1 "},
    {"the newest is preempted", 16, 8, 0, {{5, 4, 1, 1, {}}, {7, 6, 2, 2, {}}, {7, 6, 2, 2, {}}}, {}, {},
     "preempt 2; take 1; 0:1 1:1 "},
    {"a prefilling newest too", 16, 8, 0, {{5, 4, 1, 1, {}}, {40, 16, 10, 10, {}}}, {}, {},
     "preempt 1; take 1; 0:1 "},
    {"as many as it takes", 16, 8, 0, {{5, 4, 1, 1, {}}, {5, 4, 1, 1, {}}, {3, 2, 1, 1, {}}}, {}, {},
     "preempt 2; preempt 1; take 1; 0:1 "},
    {"the newest gives way itself", 16, 8, 0, {{7, 6, 2, 2, {}}, {5, 4, 1, 1, {}}}, {}, {},
     "preempt 1; 0:1 "},
    {"one in the middle preempts the newest, not itself", 16, 8, 0,
     {{3, 2, 1, 1, {}}, {5, 4, 1, 1, {}}, {3, 2, 1, 1, {}}}, {}, {}, "preempt 2; take 1; 0:1 1:1 "},
    {"nobody comes when somebody had to go", 16, 8, 0, {{7, 6, 2, 2, {}}, {5, 4, 1, 1, {}}},
     {{1, 0, 0, 0, {}}}, {}, "preempt 1; 0:1 "},
    {"alone in a full pool it ends, the next comes later", 16, 8, 0, {{9, 8, 2, 2, {}}}, {{5, 0, 0, 0, {}}},
     {}, "full 0; "},
    {"all others preempted, still full", 16, 8, 0, {{9, 8, 2, 2, {0}}, {3, 2, 0, 0, {0}}}, {{1, 0, 0, 0, {}}},
     {{4, true, 2}}, "full 0; preempt 1; "},
    {"idle adapters go before sequences", 16, 8, 3, {{5, 4, 1, 1, {}}, {7, 6, 2, 2, {}}}, {},
     {{3, true, 0}}, "take 1; 0:1 1:1 "},
    {"never one in use", 16, 8, 0, {{5, 4, 1, 1, {0}}, {7, 6, 2, 2, {1}}}, {},
     {{3, true, 1}, {3, true, 1}}, "preempt 1; take 1; 0:1 "},
    {"a preempted one's adapter becomes idle", 16, 8, 0, {{5, 4, 1, 1, {0}}, {1, 0, 0, 0, {1}}}, {},
     {{3, true, 1}, {3, true, 1}}, "preempt 1; take 1; 0:1 "},
    {"a resident adapter costs what lies in its pages already", 16, 8, 11, {}, {{8, 0, 0, 0, {0}}}, {{9, true, 0}},
     "admit 1; take 2; 0:8 "},
    {"an adapter and KV", 16, 8, 5, {}, {{8, 0, 0, 0, {0}}}, {{3, false, 0}}, "admit 1; take 5; 0:8 "},
    {"an adapter that does not fit", 16, 8, 4, {}, {{8, 0, 0, 0, {0}}}, {{3, false, 0}}, ""},
    {"room made by an idle adapter", 16, 8, 5, {}, {{8, 0, 0, 0, {0}}},
     {{3, false, 0}, {4, true, 0}}, "admit 1; take 5; 0:8 "},
    {"its own idle adapter is not room", 16, 8, 4, {}, {{8, 0, 0, 0, {0}}}, {{3, true, 0}}, ""},
    {"taking turns: the other's adapter is in use", 16, 8, 1, {{5, 4, 2, 2, {1}}}, {{4, 0, 0, 0, {0}}},
     {{3, false, 0}, {3, true, 1}}, "0:1 "},
    {"two requests of one adapter load it once", 16, 8, 6, {}, {{4, 0, 0, 0, {0}}, {4, 0, 0, 0, {0}}},
     {{3, false, 0}}, "admit 2; take 5; 0:4 1:4 "},
    // Adapters of one request: all of them, or it waits.
    {"both of a mix are brought", 16, 8, 8, {}, {{8, 0, 0, 0, {0, 1}}},
     {{3, false, 0}, {3, false, 0}}, "admit 1; take 8; 0:8 "},
    {"there is room for one of them", 16, 8, 7, {}, {{8, 0, 0, 0, {0, 1}}},
     {{3, false, 0}, {3, false, 0}}, ""},
    {"one is resident, the other is brought", 16, 8, 14, {}, {{8, 0, 0, 0, {0, 1}}},
     {{9, true, 0}, {3, false, 0}}, "admit 1; take 5; 0:8 "},
    {"one is resident, the other does not fit", 16, 8, 13, {}, {{8, 0, 0, 0, {0, 1}}},
     {{9, true, 0}, {3, false, 0}}, ""},
    {"neither of a mix is room for it", 16, 8, 11, {}, {{8, 0, 0, 0, {0, 2}}},
     {{3, true, 0}, {4, true, 0}, {3, true, 0}}, "admit 1; take 2; 0:8 "},
    {"neither of a mix is room for it, and there is none", 16, 8, 7, {}, {{8, 0, 0, 0, {0, 1}}},
     {{3, true, 0}, {3, true, 0}}, ""},
    {"nor for its other adapter", 16, 8, 11, {}, {{8, 0, 0, 0, {0, 1}}},
     {{9, true, 0}, {3, false, 0}}, ""},
    {"mixes that share an adapter bring it once", 16, 8, 12, {},
     {{4, 0, 0, 0, {0, 1}}, {4, 0, 0, 0, {1, 2}}},
     {{3, false, 0}, {3, false, 0}, {3, false, 0}}, "admit 2; take 11; 0:4 1:4 "},
    {"but each needs its other one too", 16, 8, 11, {}, {{4, 0, 0, 0, {0, 1}}, {4, 0, 0, 0, {1, 2}}},
     {{3, false, 0}, {3, false, 0}, {3, false, 0}}, "admit 1; take 7; 0:4 "},
    {"what others use stays when a mix is preempted", 16, 8, 0,
     {{5, 4, 1, 1, {0}}, {1, 0, 0, 0, {0, 1}}}, {}, {{3, true, 2}, {3, true, 1}},
     "preempt 1; take 1; 0:1 "},
    // Blocks that were found in the prefix cache.
    {"who waits computes what was not found", 16, 8, 2, {}, {{8, 4, 1, 1, {}}}, {},
     "admit 1; take 1; 0:4 "},
    {"cold blocks are no room for who found them", 16, 8, 2, {}, {{12, 8, 2, 2, {}}}, {}, ""},
    {"blocks that others hold cost nothing", 16, 8, 2, {{8, 7, 2, 2, {}}}, {{8, 4, 1, 0, {}}}, {},
     "admit 1; take 1; 0:1 1:4 "},
    {"but no less than the rest", 16, 8, 1, {{8, 7, 2, 2, {}}}, {{8, 4, 1, 0, {}}}, {}, "0:1 "},
    {"two who found the same cold block", 16, 8, 4, {}, {{8, 4, 1, 1, {}}, {8, 4, 1, 0, {}}}, {},
     "admit 2; take 2; 0:4 1:4 "},
    {"what was found is not in the budget", 4, 2, 9, {}, {{40, 36, 9, 0, {}}, {4, 0, 0, 0, {}}}, {},
     "admit 1; take 1; 0:4 "},
    {"all but a token was found", 16, 8, 1, {}, {{9, 8, 2, 0, {}}}, {}, "admit 1; take 1; 0:1 "},
    {"a preempted one gives up what it alone has", 16, 8, 0,
     {{9, 8, 2, 2, {}}, {11, 10, 3, 1, {}}}, {}, {}, "preempt 1; take 1; 0:1 "},
    {"preempting who shares everything gives nothing", 16, 8, 0,
     {{5, 4, 1, 1, {}}, {9, 8, 2, 2, {}}, {7, 4, 2, 0, {}}}, {}, {},
     "preempt 2; preempt 1; take 1; 0:1 "},
    {"alone, when the other has shared all", 16, 8, 0, {{9, 8, 2, 2, {}}, {9, 6, 2, 0, {}}}, {}, {},
     "full 0; preempt 1; "},
    {"a budget of one", 1, 1, 10, {{9, 4, 3, 3, {}}}, {{1, 0, 0, 0, {}}}, {}, "0:1 "},
    // With a step in flight, what is given up comes one schedule later.
    {"a decode waits for a page that retires", 16, 8, 0, {{5, 4, 1, 1, {}}, {6, 5, 2, 2, {}}}, {}, {},
     "1:1 ", 1},
    {"a page is waited for by one alone", 16, 8, 0, {{5, 4, 1, 1, {}}, {5, 4, 1, 1, {}}, {6, 5, 2, 2, {}}},
     {}, {}, "preempt 2; ", 1},
    {"preempted, and its pages come later", 16, 8, 0, {{5, 4, 1, 1, {}}, {7, 6, 2, 2, {}}}, {}, {},
     "preempt 1; ", 0},
    {"what idle adapters lie in is there at once", 16, 8, 3, {{5, 4, 1, 1, {}}}, {}, {{3, true, 0}},
     "take 1; 0:1 ", 0},
    {"alone with a full pool it waits: what is in flight may end it", 16, 8, 0, {{5, 4, 1, 1, {}}}, {},
     {}, "", 0},
    {"an admission into pages that are free", 16, 8, 3, {{5, 4, 2, 2, {}}}, {{8, 0, 0, 0, {}}}, {},
     "admit 1; take 2; 0:1 1:8 ", 9},
    {"an admission waits for pages that retire", 16, 8, 1, {{5, 4, 2, 2, {}}}, {{8, 0, 0, 0, {}}}, {},
     "0:1 ", 9},
    {"pages that retire are no reserve for what is claimed now", 16, 8, 2, {},
     {{12, 8, 2, 2, {}}}, {}, "", 9},
    {"nothing to wait for", 16, 8, 1, {{5, 4, 2, 2, {}}}, {{8, 0, 0, 0, {}}}, {{1, true, 1}}, "0:1 ",
     1},
};
// clang-format on

class SchedulerTable : public testing::TestWithParam<Case> {};

TEST_P(SchedulerTable, Schedules) {
  const Case& c = GetParam();
  const SchedulerState state{{c.budget, c.max_running, 4},
                             c.available_pages,
                             c.running,
                             c.waiting,
                             c.adapters,
                             c.coming >= 0,
                             std::max(c.coming, 0)};
  EXPECT_EQ(text(make_schedule(state)), c.expected);
}

INSTANTIATE_TEST_SUITE_P(Scheduler, SchedulerTable, testing::ValuesIn(kCases));

TEST(Scheduler, DecodesTakeAtMostHalfOfAStep) {
  EXPECT_EQ(max_running_sequences(256, 512), 256);
  EXPECT_EQ(max_running_sequences(256, 64), 32);
  EXPECT_EQ(max_running_sequences(8, 64), 8);
  EXPECT_EQ(max_running_sequences(8, 1), 1);
}

// {tokens known, tokens computed, pages, first pages, adapters, generates, light}
TEST(Scheduler, WhatIsBeyondAShareYieldsItsRows) {
  const ScheduledSequence beyond{5, 4, 2, 2, {}, true, false}, within{5, 4, 2, 2, {}, true, true};
  const ScheduledSequence long_prompt{40, 0, 10, 10, {}, false, false};
  const std::vector<ScheduledSequence> running = {within, beyond, long_prompt, beyond, beyond};
  const ScheduledSequence light{6, 0, 0, 0, {}, false, true}, other{6, 0, 0, 0, {}, false, false};
  const std::vector<ScheduledSequence> light_first = {light, other}, other_first = {other, light};
  EXPECT_EQ(text(make_schedule({{8, 8, 4}, 20, running, light_first, {}})),
            "admit 1; take 2; 0:1 1:1 5:6 ")
      << "the newest two yield";
  EXPECT_EQ(text(make_schedule({{8, 8, 4}, 20, running, other_first, {}})), "0:1 1:1 2:4 3:1 4:1 ")
      << "turns are kept";
}

// Beside a flood a step has eight rows of thirty-two, and what prompts of the light have.
TEST(Scheduler, StepsAreShortBesideAFloodButForPromptsOfTheLight) {
  const ScheduledSequence kept{5, 4, 2, 2, {}, true, false, true};
  const ScheduledSequence beyond{5, 4, 2, 2, {}, true, false}, within{5, 4, 2, 2, {}, true, true};
  const ScheduledSequence prompt{40, 0, 10, 10, {}, false, false};
  const ScheduledSequence oldest_prompt{40, 0, 10, 10, {}, false, false, true};
  const ScheduledSequence light{20, 0, 0, 0, {}, false, true}, other{6, 0, 0, 0, {}, false, false};
  const auto schedule = [](const std::vector<ScheduledSequence>& running,
                           const std::vector<ScheduledSequence>& waiting, int32_t flood_rows = 8,
                           bool others_waited = true) {
    SchedulerState state{{32, 16, 4}, 90, running, waiting, {}};
    state.flood_rows = flood_rows;
    state.others_waited = others_waited;
    const Schedule made = make_schedule(state);
    return text(made) + (made.others_wait ? "others wait" : "");
  };
  EXPECT_EQ(schedule({beyond, prompt}, {other}), "0:1 1:7 ");
  EXPECT_EQ(schedule({beyond, prompt}, {other}, 0), "0:1 1:31 ") << "no flood";
  EXPECT_EQ(schedule(std::vector(10, beyond), {}), "0:1 1:1 2:1 3:1 4:1 5:1 6:1 7:1 ")
      << "the newest wait for a step";
  EXPECT_EQ(schedule({kept, within, beyond, prompt}, {light, other}),
            "admit 1; take 5; 0:1 1:1 4:20 ")
      << "a whole prompt at once, and nothing of the flood but its part";
  EXPECT_EQ(schedule({oldest_prompt, beyond}, {light, light}), "admit 2; take 10; 0:1 2:20 3:11 ")
      << "its oldest goes on, whatever comes";
  EXPECT_EQ(schedule({kept, within, beyond, prompt}, {light, other}, 8, false),
            "admit 1; take 5; 1:1 4:20 others wait")
      << "but not in every step";
}

// Whoever is light, and however short steps are.
TEST(Scheduler, NoStepHasMoreRowsThanThereAre) {
  uint32_t state = 1;
  const auto random = [&](int32_t below) {
    state = state * 1664525u + 1013904223u;
    return static_cast<int32_t>((uint64_t{state} * static_cast<uint64_t>(below)) >> 32);
  };
  for (int32_t round = 0; round < 2000; ++round) {
    const auto sequences = [&](int32_t count, bool waits) {
      std::vector<ScheduledSequence> list(count);
      for (ScheduledSequence& s : list) {
        s.num_tokens = 2 + random(30);
        s.generates = !waits && random(3) > 0;
        s.num_computed = waits ? 0 : s.generates ? s.num_tokens - 1 : random(s.num_tokens);
        s.num_blocks = s.num_first_blocks = waits ? 0 : (s.num_tokens + 3) / 4;
        s.is_light = random(2) == 0;
        s.keeps = random(3) == 0;
      }
      return list;
    };
    const std::vector<ScheduledSequence> running = sequences(random(9), false);
    const std::vector<ScheduledSequence> waiting = sequences(random(6), true);
    SchedulerState at{{16, 8, 4}, 1000, running, waiting, {}};
    at.flood_rows = random(18);
    at.light_places = random(3);
    at.others_waited = random(2) == 0;
    int32_t num_rows = 0;
    for (const Chunk& chunk : make_schedule(at).chunks) num_rows += chunk.num_tokens;
    ASSERT_LE(num_rows, 16) << "round " << round;
    ASSERT_TRUE(num_rows > 0 || running.empty()) << "round " << round;
  }
}

// Where a step can be set aside, prompts of the light are admitted with one step and computed by
// others, before it goes on.
TEST(Scheduler, PromptsOfTheLightHaveStepsOfTheirOwn) {
  const ScheduledSequence decode{5, 4, 2, 2, {}, true, true}, prompt{40, 0, 10, 10, {}};
  const ScheduledSequence begun{9, 4, 3, 3, {}, false, true};
  ScheduledSequence aside = begun;
  aside.is_set_aside = true;
  const ScheduledSequence light{20, 0, 0, 0, {}, false, true},
      one_token{9, 8, 2, 0, {}, false, true};
  const ScheduledSequence other{6, 0, 0, 0, {}};
  const auto schedule = [](StepKind kind, const std::vector<ScheduledSequence>& running,
                           const std::vector<ScheduledSequence>& waiting, int32_t rows = 32,
                           int32_t pages = 90) {
    SchedulerState state{{rows, 16, 4}, pages, running, waiting, {}};
    state.kind = kind;
    return text(make_schedule(state));
  };
  const auto without = [&](const auto&... of) { return schedule(StepKind::kWithoutLight, of...); };
  const auto only = [&](const auto&... of) { return schedule(StepKind::kLight, of...); };
  using Sequences = std::vector<ScheduledSequence>;
  EXPECT_EQ(without(Sequences{decode, begun, prompt}, Sequences{light, other}),
            "admit 1; take 5; 0:1 2:31 ");
  EXPECT_EQ(without(Sequences{decode}, Sequences{light, other}), "admit 2; take 7; 0:1 2:6 ");
  EXPECT_EQ(without(Sequences{begun}, Sequences{light}), "admit 1; take 5; ")
      << "nothing but what others compute";
  EXPECT_EQ(only(Sequences{decode, begun, prompt, aside}, Sequences{light, other}),
            "admit 1; take 5; 1:5 4:20 ");
  EXPECT_EQ(only(Sequences{decode, prompt}, Sequences{other, light}), "") << "turns are kept";
  EXPECT_EQ(only(Sequences{decode, prompt}, Sequences{one_token}), "admit 1; take 1; 2:1 ");
  EXPECT_EQ(only(Sequences{begun}, Sequences{light, light}, 12), "admit 1; take 5; 0:5 1:7 ");
  EXPECT_EQ(only(Sequences{decode}, Sequences{light}, 32, 5), "") << "a page stays in reserve";
}

TEST(Scheduler, SomePlacesAreForTheLightAlone) {
  const std::vector<ScheduledSequence> running(3, {5, 4, 2, 2, {}, true, false});
  const ScheduledSequence light{4, 0, 0, 0, {}, false, true}, other{4, 0, 0, 0, {}, false, false};
  const std::vector<ScheduledSequence> others = {other}, light_first = {light, other};
  EXPECT_EQ(make_schedule({{16, 4, 4}, 20, running, others, {}, false, 0, 1}).num_admitted, 0);
  EXPECT_EQ(make_schedule({{16, 4, 4}, 20, running, light_first, {}, false, 0, 1}).num_admitted, 1);
}

// A prefill beside as many decodes as may run has half of every step.
TEST(Scheduler, APrefillProgressesBesideAllDecodes) {
  std::vector<ScheduledSequence> running(7, {5, 4, 2, 2, {}});
  running.push_back({100, 0, 25, 25, {}});
  const SchedulerState state{{16, max_running_sequences(100, 16), 4}, 0, running, {}, {}};
  const Schedule schedule = make_schedule(state);
  ASSERT_EQ(schedule.chunks.size(), 8u);
  EXPECT_EQ(schedule.chunks.back().num_tokens, 9);
}

}  // namespace
}  // namespace lorax
