# lorax_tests: every test/native/**/*.cc but cuda/ (LoraxCuda.cmake) in one executable, on the
# system's GoogleTest.
enable_testing()
# scripts/test.mjs reads GTest_DIR from the cache to tell "not installed" from a failure.
find_package(GTest CONFIG)
if(NOT GTest_FOUND)
  message(FATAL_ERROR "GoogleTest is not installed (Debian: apt install libgtest-dev)")
endif()
include(GoogleTest)

file(GLOB_RECURSE test_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/test/native/*.cc)
list(FILTER test_sources EXCLUDE REGEX "/test/native/(cuda|plugin)/")
if(NOT TARGET test_plugin)
  list(FILTER test_sources EXCLUDE REGEX "/test/native/binding/")
endif()
if(test_sources)
  add_executable(lorax_tests ${test_sources})
  target_link_libraries(lorax_tests PRIVATE core backend_cpu GTest::gtest GTest::gtest_main)
  target_include_directories(lorax_tests PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/test/native)
  # Half the time to compile; what is computed with, and the reference, are optimized.
  if(NOT MSVC)
    set(plain_sources ${test_sources})
    list(FILTER plain_sources EXCLUDE REGEX "/test/native/reference/")
    set_source_files_properties(${plain_sources} PROPERTIES COMPILE_OPTIONS -O1)
  endif()
  # Fixtures are found from here, never from the working directory.
  target_compile_definitions(lorax_tests PRIVATE LORAX_SOURCE_DIR="${CMAKE_CURRENT_SOURCE_DIR}")
  # The part of binding/ that knows no N-API.
  if(TARGET test_plugin)
    lorax_plugin_abi(${CMAKE_CURRENT_SOURCE_DIR}/native/binding/backend_plugin.cc)
    target_sources(lorax_tests PRIVATE
                   ${CMAKE_CURRENT_SOURCE_DIR}/native/binding/backend_plugin.cc)
    add_dependencies(lorax_tests test_plugin test_plugin_shared_runtime test_plugin_other_headers)
    target_compile_definitions(lorax_tests PRIVATE
                               LORAX_TEST_PLUGIN_DIR="$<TARGET_FILE_DIR:test_plugin>")
  endif()
  gtest_discover_tests(lorax_tests DISCOVERY_MODE PRE_TEST)
else()
  message(STATUS "test/native holds no sources: no lorax_tests")
endif()
