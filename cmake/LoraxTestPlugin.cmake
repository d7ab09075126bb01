# Plugins without CUDA, for tests of what opens lorax_cuda.so: one as it is shipped, with a C++
# runtime of its own; one with the process's; one made from other headers.
set(plugin_dir ${CMAKE_CURRENT_SOURCE_DIR}/test/native/plugin)
set(test_plugin_sources ${plugin_dir}/test_plugin.cc
                        ${CMAKE_CURRENT_SOURCE_DIR}/test/native/reference/reference_backend.cc)
lorax_plugin_abi(${plugin_dir}/test_plugin.cc)
foreach(target test_plugin test_plugin_shared_runtime)
  add_library(${target} SHARED ${test_plugin_sources})
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/test/native)
  target_link_libraries(${target} PRIVATE core)
endforeach()
add_library(test_plugin_other_headers SHARED ${plugin_dir}/test_plugin_other_headers.cc)
target_link_libraries(test_plugin_other_headers PRIVATE lorax_flags)

lorax_plugin_options(test_plugin)
set_target_properties(test_plugin_shared_runtime test_plugin_other_headers PROPERTIES
                      PREFIX "" SUFFIX ".so")
