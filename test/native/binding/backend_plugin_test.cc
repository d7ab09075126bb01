// The border between addon and lorax_cuda.so, over plugins without CUDA (test/native/plugin): what
// is refused, and that objects and exceptions of another module, with a C++ runtime of its own, are
// what they are here.
#include "binding/backend_plugin.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <variant>

namespace lorax {
namespace {

std::string plugin_path(const std::string& name) {
  return std::string(LORAX_TEST_PLUGIN_DIR) + "/" + name + ".so";
}

// What `call` throws, as another module's exception is met in binding/: by type, never by code.
template <typename Call>
Error thrown_by(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  throw std::logic_error("nothing was thrown");
}

std::string text(const Error& error, const char* key) {
  return std::get<std::string>(error.data().at(key));
}

TEST(BackendPluginTest, SaysWhatIsWrongWithTheFile) {
  const Error absent = thrown_by([] { open_cuda_plugin(""); });
  EXPECT_EQ(absent.code(), "DEVICE_UNAVAILABLE");
  EXPECT_EQ(text(absent, "reason"), "not-built");

  const std::string nowhere = plugin_path("there_is_none");
  const Error missing = thrown_by([&] { open_cuda_plugin(nowhere); });
  EXPECT_EQ(missing.code(), "DEVICE_UNAVAILABLE");
  EXPECT_EQ(text(missing, "reason"), "not-loadable");
  EXPECT_EQ(text(missing, "file"), nowhere);
  EXPECT_NE(std::string(missing.what()).find(nowhere), std::string::npos) << missing.what();

  const Error text_file = thrown_by([] { open_cuda_plugin(LORAX_SOURCE_DIR "/CMakeLists.txt"); });
  EXPECT_EQ(text(text_file, "reason"), "not-loadable");
}

TEST(BackendPluginTest, RefusesOtherHeaders) {
  const Error error = thrown_by([] { open_cuda_plugin(plugin_path("test_plugin_other_headers")); });
  EXPECT_EQ(error.code(), "DEVICE_UNAVAILABLE");
  EXPECT_EQ(text(error, "reason"), "other-version");
}

class PluginRuntimeTest : public testing::TestWithParam<const char*> {
 protected:
  const CudaPlugin& plugin_ = open_cuda_plugin(plugin_path(GetParam()));
};

TEST_P(PluginRuntimeTest, ErrorsKeepTypeAndData) {
  EXPECT_EQ(plugin_.probe(0), "a test's device, sm_00, 0.0 GiB");
  for (int i = 0; i < 1000; ++i) {
    const Error error = thrown_by([&] { plugin_.probe(1 + i); });
    EXPECT_EQ(error.code(), "DEVICE_UNAVAILABLE");
    EXPECT_EQ(text(error, "reason"), "no-device");
    EXPECT_EQ(std::get<double>(error.data().at("index")), 1 + i);
  }
}

// Where each module had an unwinder of its own, one would read tables that only its own first throw
// fills: what works in a process that has thrown before kills a fresh one.
TEST_P(PluginRuntimeTest, TheFirstThrowOfAProcessIsCaught) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        try {
          plugin_.probe(1);
        } catch (const Error&) {
          std::exit(7);
        }
      },
      testing::ExitedWithCode(7), "");
}

TEST_P(PluginRuntimeTest, OtherExceptionsAreCaughtByTheirTypes) {
  CudaOptions options;
  options.cache_directory = "throw runtime_error";
  EXPECT_THROW(plugin_.make_backend(options), std::runtime_error);
  options.cache_directory = "throw bad_alloc";
  EXPECT_THROW(plugin_.make_backend(options), std::bad_alloc);
  options.cache_directory = "throw int";
  EXPECT_THROW(plugin_.make_backend(options), int);
}

TEST_P(PluginRuntimeTest, AnErrorOutlivesItsThrowAndItsBackend) {
  std::exception_ptr kept;
  {
    CudaOptions options;
    options.cache_directory = "lose at step 2";
    const std::unique_ptr<Backend> backend = plugin_.make_backend(options);
    StepPlan plan;
    plan.step = 1;
    backend->begin_step(plan);
    backend->end_step();
    backend->collect({});
    plan.step = 2;
    try {
      backend->begin_step(plan);
    } catch (const std::exception& error) {
      // As the engine tells them apart.
      ASSERT_NE(dynamic_cast<const Error*>(&error), nullptr);
      kept = std::current_exception();
    }
  }
  ASSERT_NE(kept, nullptr);
  const Error error = thrown_by([&] { std::rethrow_exception(kept); });
  EXPECT_EQ(error.code(), "ENGINE_LOST");
  EXPECT_FALSE(std::get<bool>(error.data().at("recoverable")));
}

TEST_P(PluginRuntimeTest, OptionsAndDescriptionsCross) {
  CudaOptions options;
  options.memory_fraction = 0.25;
  options.deterministic = true;
  const std::unique_ptr<Backend> backend = plugin_.make_backend(options);
  EXPECT_EQ(backend->info().device, "cuda");
  EXPECT_EQ(backend->info().description, "a test's device, 0.250000 of memory, deterministic");
}

INSTANTIATE_TEST_SUITE_P(Runtimes, PluginRuntimeTest,
                         testing::Values("test_plugin", "test_plugin_shared_runtime"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lorax
