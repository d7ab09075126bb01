// Zeroed, aligned, movable; a refusal says how much was asked for.
#include "backend/host_buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>

#include "backend/error.h"

namespace lorax {
namespace {

TEST(HostBuffer, IsZeroAndAligned) {
  for (const int64_t bytes : {int64_t{1}, int64_t{4097}, (int64_t{5} << 20) + 3}) {
    HostBuffer buffer(bytes);
    EXPECT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.as<uint8_t>()) % 64, 0u);
    EXPECT_EQ(buffer.as<uint8_t>()[0], 0);
    EXPECT_EQ(buffer.as<uint8_t>()[bytes - 1], 0);
    buffer.as<uint8_t>()[bytes - 1] = 7;
    const HostBuffer moved = std::move(buffer);
    EXPECT_EQ(moved.as<uint8_t>()[bytes - 1], 7);
  }
}

TEST(HostBuffer, RefusesWhatTheSystemDoesNotHaveByName) {
  constexpr int64_t kNoMachineHas = int64_t{1} << 62;
  HostBuffer buffer(64);
  buffer.as<uint8_t>()[0] = 9;
  try {
    buffer.ensure(kNoMachineHas);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "POOL_EXHAUSTED");
    EXPECT_NE(std::string(error.what()).find(std::to_string(kNoMachineHas)), std::string::npos);
    EXPECT_EQ(error.data().at("bytes"), ErrorData::mapped_type(0x1p62));
  }
  EXPECT_EQ(buffer.bytes(), 64);  // as before
  EXPECT_EQ(buffer.as<uint8_t>()[0], 9);
}

}  // namespace
}  // namespace lorax
